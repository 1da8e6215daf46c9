import assert from "node:assert/strict";
import test from "node:test";
import { createElement as h } from "react";
import { renderToString } from "react-dom/server";

test("both modules can be loaded where there is no page, and a component rendered there", async () => {
  const before = Object.keys(globalThis);
  const { useStream } = await import("../dist/react.js");
  const { Penstock } = await import("../dist/index.js");
  assert.deepEqual(Object.keys(globalThis), before);
  function Answer() {
    const { text, phase } = useStream();
    return h("p", { title: phase }, text);
  }
  assert.equal(renderToString(h(Answer)), '<p title="idle"></p>');
  assert.throws(() => new Penstock(), { name: "TypeError", message: /url must be the gateway's address/ });
});
