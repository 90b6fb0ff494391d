// `node sdk/javascript/build.mjs OUT`: bundles plugin.js with the SDK, and makes a component of it. In the plugin's folder.

import { cp, rm, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
import esbuild from "esbuild";

const SDK = "sdk/javascript";
// What a plugin may import besides the SDK itself, and what its component then imports or exports.
const MORE = {
  state: "export state;",
  keyvalue: "import wasi:keyvalue/store@0.2.0-draft; import wasi:keyvalue/batch@0.2.0-draft;",
  http: "import wasi:http/outgoing-handler@0.2.12;",
};

const [out] = process.argv.slice(2);
const alias = Object.fromEntries(Object.keys(MORE).map((name) => [`fs-data-sink/${name}`, `./${SDK}/${name}.js`]));
const bundled = await esbuild.build({
  entryPoints: [`${SDK}/component.js`],
  alias: { ...alias, "fs-data-sink": `./${SDK}/index.js` },
  bundle: true,
  external: ["fs-data-sink:*", "wasi:*"],
  format: "esm",
  logLevel: "warning",
  mainFields: ["module", "main"],
  metafile: true,
  platform: "neutral",
  write: false,
});
const used = Object.entries(MORE).filter(([name]) => `${SDK}/${name}.js` in bundled.metafile.inputs);
const witPath = ".build/wit";
await rm(witPath, { recursive: true, force: true });
await cp("wit", witPath, { recursive: true });
const world = `world guest { include plugin; ${used.map(([, words]) => words).join(" ")} }`;
await writeFile(`${witPath}/guest.wit`, `package fs-data-sink:plugin@0.1.0;\n${world}\n`);
const { component } = await componentize(bundled.outputFiles[0].text, {
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
  witPath,
  worldName: "fs-data-sink:plugin/guest",
});
await writeFile(out, component);
