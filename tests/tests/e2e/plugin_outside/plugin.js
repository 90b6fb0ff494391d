// Numbers the rows of its source over restarts, and gives them names out of a bucket and a greeting of a server; it holds them until a flush.

import { Field, Output, count, gauge, granted, log } from "fs-data-sink";
import { get } from "fs-data-sink/http";
import { Bucket } from "fs-data-sink/keyvalue";
import { stateful } from "fs-data-sink/state";

const COLUMNS = { country: "utf8", seen: "int64", name: "utf8", greeting: "utf8" };

export default stateful({
  name: "numbers",
  buffersRows: true,

  open(config, schema) {
    schema.require("country", "utf8");
    return { config, seen: 0, held: [], names: new Bucket("names") };
  },

  replaced: () => Object.entries(COLUMNS).map(([name, type]) => new Field(name, type)),

  process(batch, kept) {
    const { config, held, names } = kept;
    const countries = batch.column(config.fail ? "colour" : "country");
    log.info(`heard ${granted("region")} and ${granted("x")}`);
    count("rows", batch.numRows);
    gauge("share", 0.5);
    const decoder = new TextDecoder();
    const greeting = decoder.decode(get(config.url, { "x-who": "numbers" }).body);
    names.getMany(countries).forEach((name, row) => {
      kept.seen += 1;
      held.push([countries[row], kept.seen, name && decoder.decode(name), greeting]);
    });
    return new Output();
  },

  flush(reason, kept) {
    const held = kept.held.splice(0);
    if (held.length === 0) return undefined;
    return Object.fromEntries(Object.keys(COLUMNS).map((name, at) => [name, held.map((row) => row[at])]));
  },

  snapshot: (kept) => new TextEncoder().encode(String(kept.seen)),

  restore(snapshot, kept) {
    kept.seen = Number(new TextDecoder().decode(snapshot));
  },
});
