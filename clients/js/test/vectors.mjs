// The vectors that Python's tests read, too.

import { readdirSync, readFileSync } from "node:fs";

const root = new URL("../../../vectors/", import.meta.url);

export function load(folder) {
  const names = readdirSync(new URL(folder, root)).filter((name) => name.endsWith(".json"));
  if (!names.length) throw new Error(`no vectors in ${folder}`);
  return names.map((name) => ({ name, ...JSON.parse(readFileSync(new URL(`${folder}/${name}`, root), "utf8")) }));
}

/** Whole, byte by byte, and in two at every place (at some, where there are many). */
export function* cuttings(bytes) {
  yield [bytes];
  yield Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
  const step = bytes.length > 2048 ? 1 + Math.floor(bytes.length / 500) : 1;
  for (let at = 1; at < bytes.length; at += step) yield [bytes.subarray(0, at), bytes.subarray(at)];
}
