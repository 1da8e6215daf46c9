// Runs one reader of readers.mjs through many jobs: node torture.mjs NAME FILE, where FILE has
// { jobs, expected, lanes } as JSON; prints the results as JSON.

import { readFile } from "node:fs/promises";
import { XMLHttpRequest } from "./react-native-xhr.mjs";
import { runAll } from "./readers.mjs";

const [name, file] = process.argv.slice(2);

// What these two take from where they are made for; neither looks further.
if (name === "fetch-event-source") {
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
}
if (name === "react-native-sse" || name === "penstock-xhr") globalThis.XMLHttpRequest = XMLHttpRequest;

console.error = console.warn = () => {}; // the polyfill reports each cut
const { jobs, expected, lanes } = JSON.parse(await readFile(file, "utf8"));
const results = await runAll(name, jobs, expected, { lanes });
process.stdout.write(JSON.stringify(results), () => process.exit(0));
