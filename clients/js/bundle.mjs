// Bundles the built client into the one file that the gateway ships: `node bundle.mjs [file]`.

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../../src/penstock/server/pages/client/penstock.js");
await build({
  entryPoints: [join(here, "dist/index.js")],
  outfile: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  banner: { js: "// penstock: the JavaScript client, built from clients/js by `make js`." },
});
