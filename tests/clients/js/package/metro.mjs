// The package as React Native's bundler has it, by its exports and, as older ones do, by its main fields.

import { writeFileSync } from "node:fs";
import Metro from "metro";

writeFileSync("entry.js", 'import "penstock/react";\nimport { Penstock } from "penstock";\nnew Penstock({ url: "http://localhost" });\n');
for (const unstable_enablePackageExports of [true, false]) {
  const config = await Metro.loadConfig({}, {});
  const resolver = { ...config.resolver, unstable_enablePackageExports, unstable_conditionNames: ["require", "react-native"] };
  const { code } = await Metro.runBuild({ ...config, resolver }, { entry: "entry.js", platform: "ios", dev: false, minify: false });
  console.log("bundled", code.includes("XMLHttpRequest"), code.includes("useState"));
}
process.exit(0);
