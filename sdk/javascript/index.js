// Write fs-data-sink plugins in JavaScript: one object, columns as arrays. No WIT and no Arrow in sight.
//
//     import { Output } from "fs-data-sink";
//
//     export default {
//       name: "drop-nulls",
//       open: (config, schema) => ({ column: schema.require(config.column).name }),
//       process: (batch, { column }) => new Output({ keep: batch.column(column).map((value) => value !== null) }),
//     };
//
// The host makes an instance for each lane of a pipeline; an instance sees one batch at a time, in the order of its lane. What `open`
// answers is given to every `process`. Where `replaced` answers fields in the place of `added`, rows of the plugin's own take the place of the
// batch: `new Output({ replace: { name: [...] } })`; such a plugin may also hold rows (`buffersRows`) until `flush(reason, kept)` answers them
// as `{ name: [...] }`. The modules `fs-data-sink/state`, `fs-data-sink/keyvalue` and `fs-data-sink/http` have state, values by keys and requests; what
// is not imported, the component does not ask to be granted. There are no files, no network and no environment; `log` is in the host's log. An exception
// refuses the batch with its words.
//
// Values are null, booleans, numbers, texts and Uint8Array. Whole numbers of 64 bits are numbers up to 2^53 and BigInt beyond; dates,
// times and timestamps are the whole numbers that Arrow has for them. Decimals, lists, structs and maps pass through unread.

import { count as addTo, gauge as setGauge } from "fs-data-sink:plugin/metrics@0.1.0";
import { get } from "wasi:config/store@0.2.0-rc.1";
import { log as write } from "wasi:logging/logging@0.1.0-draft";
import { bits } from "./columns.js";
import { Field } from "./schema.js";

export { Field };

/** Throw it where the configuration is wrong: the pipeline does not start. Name the key. */
export class InvalidConfig extends Error {}

/** Throw it where the rows cannot be served: the pipeline does not start. Name the column. */
export class UnsupportedSchema extends Error {}

/** Throw it where it works later: the host brings the same batch again, after so many milliseconds at least. */
export class Retryable extends Error {
  constructor(message, afterMs) {
    super(message);
    this.afterMs = afterMs;
  }
}

/**
 * What becomes of the rows of a batch.
 *
 * keep: a truth for each row; without it all live on. The others are left out and counted as filtered.
 * columns: values for the columns that `added` names, by name: one for each row of the batch.
 * replace: instead of both, rows in the place of the batch: values by name, for all columns that `replaced` names. Then dead letters cannot
 * show the record behind a row any more.
 */
export class Output {
  constructor({ keep = null, columns = {}, replace = null } = {}) {
    this.keep = keep;
    this.columns = columns;
    this.replace = replace;
    this.rejected = [];
  }

  /** Refuses rows, by their numbers in the batch: they become dead letters. The code is of a-z, 0-9, -, _ and . */
  reject(rows, code, message) {
    if (rows.length > 0) this.rejected.push({ code, message, rows: Uint32Array.from(rows) });
    return this;
  }
}

/** Lines in the host's log. */
export const log = Object.fromEntries(
  ["debug", "info", "warn", "error"].map((level) => [level, (message) => write(level, "", String(message))]),
);

/** Adds to a counter among the host's metrics. */
export const count = (name, amount = 1) => addTo(name, BigInt(amount));

/** Sets a gauge among the host's metrics. */
export const gauge = (name, value) => setGauge(name, value);

/** A value that the pipeline grants under `grants.config`; undefined where there is none. */
export const granted = (key) => get(key);

export { bits };
