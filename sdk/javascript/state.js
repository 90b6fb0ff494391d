// State that is recorded with the offsets. A plugin that imports this module is a plugin with state.
//
//     import { stateful } from "fs-data-sink/state";
//
//     export default stateful({
//       open: () => ({ rows: 0 }),
//       process(batch, kept) { kept.rows += batch.numRows; },
//       snapshot: (kept) => new TextEncoder().encode(JSON.stringify(kept)),
//       restore: (snapshot, kept) => Object.assign(kept, JSON.parse(new TextDecoder().decode(snapshot))),
//     });
//
// `snapshot` comes before a commit, right after `flush`, and answers as bytes all that was not given out and is still needed. `restore` comes
// right after `open` and goes on from there; an exception stops the pipeline with its words. Each source partition has an instance for
// itself; `wit/README.md` says under "State" what the host promises.

/** The plugin as it is. */
export const stateful = (plugin) => plugin;
