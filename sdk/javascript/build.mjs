// `node sdk/javascript/build.mjs OUT`: bundles plugin.js with the SDK, and makes a component of it. In the plugin's folder.

import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
import esbuild from "esbuild";

const [out] = process.argv.slice(2);
const bundled = await esbuild.build({
  entryPoints: ["sdk/javascript/component.js"],
  alias: { "fs-data-sink": "./sdk/javascript/index.js" },
  bundle: true,
  external: ["fs-data-sink:*", "wasi:*"],
  format: "esm",
  logLevel: "warning",
  mainFields: ["module", "main"],
  platform: "neutral",
  write: false,
});
const { component } = await componentize(bundled.outputFiles[0].text, {
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
  witPath: "wit",
  worldName: "fs-data-sink:plugin/plugin",
});
await writeFile(out, component);
