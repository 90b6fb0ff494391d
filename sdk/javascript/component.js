// The way from the component's exports to the object in `plugin.js`.

import configSchema from "../../config-schema.json";
import plugin from "../../plugin.js";
import { bits, column, values } from "./columns.js";
import { InvalidConfig, Output, Retryable, UnsupportedSchema } from "./index.js";
import { Schema } from "./schema.js";

let input;
let added = [];
let replaces = false;
let kept;

/** Rows that the host holds; only the columns that are asked for are copied. */
class Batch {
  #resource;

  constructor(resource) {
    this.#resource = resource;
    this.schema = input;
    this.numRows = resource.numRows();
  }

  /** The values of a column, by its name. */
  column(name) {
    return values(this.#resource.readColumn(input.position(name)));
  }
}

/** An exception as the interface has it. */
function failure(error) {
  const message = String(error?.message ?? error);
  if (error instanceof InvalidConfig) return { tag: "invalid-config", val: message };
  if (error instanceof UnsupportedSchema) return { tag: "unsupported-schema", val: message };
  if (error instanceof Retryable) return { tag: "retryable", val: [message, error.afterMs] };
  const where = String(error?.stack ?? "").split("\n")[0];
  return { tag: "failed", val: `${error?.name ?? "Error"}: ${message}${where ? ` (${where})` : ""}` };
}

/** Runs what the plugin wrote. What is thrown here is the error of the interface. */
function run(work) {
  try {
    return work();
  } catch (error) {
    throw failure(error);
  }
}

/** Rows in the place of others, as the interface has them. */
function replaced(made) {
  if (!made) return { tag: "replace-columns", val: [] };
  const columns = added.map((field) => column(field, Array.from(made[field.name] ?? [])));
  if (new Set(columns.map(({ length }) => length)).size > 1) throw new RangeError("the columns have different numbers of values");
  return { tag: "replace-columns", val: [columns] };
}

/** An Output as the interface has it. */
function answer(output, rows) {
  const keep = output.keep ?? new Array(rows).fill(true);
  if (keep.length !== rows) throw new RangeError(`keep has ${keep.length} values for ${rows} rows`);
  const alive = keep.map(Boolean);
  for (const { rows: refused } of output.rejected) refused.forEach((row) => (alive[row] = false));
  if (replaces) return { keep: { tag: "all" }, payload: replaced(output.replace), rejected: output.rejected };
  const selection = keep.every(Boolean) ? { tag: "all" } : { tag: "bitmap", val: bits(keep) };
  if (added.length === 0) return { keep: selection, payload: { tag: "unchanged" }, rejected: output.rejected };
  const columns = added.map((field) => {
    const list = output.columns[field.name];
    if (list?.length !== rows) {
      throw new RangeError(`column ${JSON.stringify(field.name)} has ${list?.length ?? "no"} values for ${rows} rows`);
    }
    return column(field, Array.from(list).filter((_, row) => alive[row]));
  });
  return { keep: selection, payload: { tag: "extend-columns", val: columns }, rejected: output.rejected };
}

export const transform = {
  describe: () => ({
    name: plugin.name,
    version: plugin.version ?? "0.1.0",
    description: plugin.description ?? "",
    roles: Object.fromEntries((plugin.roles ?? []).map((role) => [role, true])),
    configSchema: JSON.stringify(configSchema),
    buffersRows: plugin.buffersRows ?? false,
    deterministic: plugin.deterministic ?? false,
    attributes: [["sdk", "javascript/0.1.0"]],
  }),
  open: (context) =>
    run(() => {
      input = Schema.read(context.inputSchema, UnsupportedSchema);
      const config = JSON.parse(context.config);
      kept = plugin.open?.(config, input);
      replaces = plugin.replaced !== undefined;
      added = (plugin.replaced ?? plugin.added)?.call(plugin, config, input) ?? [];
      const output = replaces ? new Schema(added) : input.extended(added);
      return { outputSchema: added.length > 0 ? output.write() : undefined, attributes: [] };
    }),
  process: (resource) =>
    run(() => {
      const batch = new Batch(resource);
      return answer(plugin.process(batch, kept) ?? new Output(), batch.numRows);
    }),
  flush: (reason) =>
    run(() => {
      const made = plugin.flush?.(reason, kept);
      if (!made) return { tag: "unchanged" };
      if (!replaces) throw new TypeError("rows can be held only by a plugin with `replaced`");
      return replaced(made);
    }),
  close: () => plugin.close?.(kept),
};

/** Of a component that exports it: one whose plugin imports `fs-data-sink/state`. */
export const state = {
  snapshot: () => run(() => plugin.snapshot(kept)),
  restore: (snapshot) => run(() => void plugin.restore(snapshot, kept)),
};

