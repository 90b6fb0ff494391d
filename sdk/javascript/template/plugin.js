// Adds `is_large` to each row, leaves out rows without an amount, and refuses negative amounts.

import { Field, Output } from "fs-data-sink";

export default {
  name: "{{name}}",
  version: "0.1.0",
  description: "says which amounts are large",
  roles: ["filter", "enrich"],
  deterministic: true,

  // Once, before any row: refuse here what cannot work. What it answers is given to every `process`.
  open(config, schema) {
    schema.require(config.column, "int64", "float64");
    return config;
  },

  // The columns that come out besides those that came in.
  added: () => [new Field("is_large", "bool")],

  // Each batch of rows. Only the columns that are asked for are copied into the plugin.
  process(batch, { column, minimum }) {
    const amounts = batch.column(column);
    const output = new Output({
      keep: amounts.map((amount) => amount !== null),
      columns: { is_large: amounts.map((amount) => (amount === null ? null : amount >= minimum)) },
    });
    const negative = [...amounts.keys()].filter((row) => amounts[row] !== null && amounts[row] < 0);
    return output.reject(negative, "negative", `${column} is below 0`);
  },
};
