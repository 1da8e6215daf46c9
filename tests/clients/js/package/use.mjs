// The package as plain Node.js has it: node use.mjs, in a folder where it is installed.

import { createRequire } from "node:module";
import { Penstock } from "penstock";

const { sideEffects } = createRequire(import.meta.url)("penstock/package.json");
const stream = new Penstock({ url: process.env.PENSTOCK_URL }).ask("one two three", { model: "demo-echo" });
console.log((await stream.result()).text, stream.verified, sideEffects);
