import assert from "node:assert/strict";
import test from "node:test";
import { decode } from "../dist/envelope.js";
import { load } from "./vectors.mjs";

for (const { name, text, message, record } of load("websocket/server")) {
  test(`${name} is read as it is meant`, () => {
    const got = decode(text);
    if (message === null) return assert.equal(got, null);
    for (const [member, value] of Object.entries(message)) {
      if (member === "d") assert.deepEqual(JSON.parse(got.record), value);
      else assert.deepEqual(got[member], value, member);
    }
    if (record !== undefined) assert.equal(got.record, record);
  });
}
