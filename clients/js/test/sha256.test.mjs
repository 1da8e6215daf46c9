import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { Sha256 } from "../dist/sha256.js";

test("digests are those of Node.js, at every length and in any script", () => {
  const alphabet = ["a", "é", "流", "🌊", "\u2028", "\ud800", "\n"];
  for (let length = 0; length < 200; length += 1) {
    const text = Array.from({ length }, (_, i) => alphabet[(i * 7 + length) % alphabet.length]).join("");
    const wanted = createHash("sha256").update(Buffer.from(text.toWellFormed?.() ?? text)).digest("hex");
    assert.equal(new Sha256().text(text).hex(), wanted, JSON.stringify(text));
  }
});

test("pieces make the same digest as the whole", () => {
  const whole = "流れる水は腐らず。 ".repeat(1000);
  const digest = new Sha256();
  for (let i = 0; i < whole.length; i += 7) digest.text(whole.slice(i, i + 7));
  assert.equal(digest.hex(), createHash("sha256").update(whole).digest("hex"));
});
