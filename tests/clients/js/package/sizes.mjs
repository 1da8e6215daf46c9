// What a page gets of the package that imports a part of it: node sizes.mjs ESBUILD NAME…, in a folder where
// it is installed; prints the bytes of each, minified and compressed.

import { gzipSync } from "node:zlib";

const [esbuild, ...names] = process.argv.slice(2);
const { build } = await import(esbuild);
const how = { bundle: true, minify: true, format: "esm", target: "es2022", external: ["react"], write: false, logLevel: "error" };
for (const name of names) {
  const from = name === "useStream" ? "penstock/react" : "penstock";
  const contents = name === "*" ? `export * from "${from}"` : `import { ${name} } from "${from}"; globalThis.used = ${name}`;
  const { outputFiles } = await build({ ...how, stdin: { contents, resolveDir: process.cwd() } });
  console.log(gzipSync(outputFiles[0].contents, { level: 9 }).length);
}
