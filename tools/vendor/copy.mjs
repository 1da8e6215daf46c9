// Copies the files of the pinned packages that the pages carry: `node copy.mjs [folder]`.
//
// What goes where is the table `vendored` in package.json. Files are copied as they are, never
// edited: a test compares them with the packages.

import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../../src/penstock/server/pages/vendor");
const { vendored } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));

for (const [name, source] of Object.entries(vendored)) {
  const file = join(target, name);
  mkdirSync(dirname(file), { recursive: true });
  copyFileSync(join(here, "node_modules", source), file);
}
