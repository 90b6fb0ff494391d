// The table of table.py as arrow-js writes it, and as flechette does.
//
//     node table.mjs FOLDER         (apache-arrow and @uwdata/flechette from npm)
import { writeFileSync } from "node:fs";
import * as arrow from "apache-arrow";
import * as flechette from "@uwdata/flechette";

const ms = Date.UTC(2026, 0, 31, 12), hour = -3600_000;
const days = [Date.UTC(2026, 0, 31), Date.UTC(1960, 1, 29)];
const columns = {
  n: [1n, null, -3n, 2n ** 62n],
  flag: [true, null, false, true],
  f: [1.5, null, -0, Infinity],
  s: ["one", null, "", "größer"],
  b: [Uint8Array.of(1), null, Uint8Array.of(), Uint8Array.of(255, 0)],
  ts: [ms, null, hour, null],
  d: [days[0], null, days[1], null],
  l: [[1, 2], null, [], [null, -5]],
  st: [{ x: 7, y: "a" }, null, { x: null, y: null }, { x: -1, y: "b" }],
  k: ["red", null, "blue", "red"],
};

function ofArrowJs() {
  const list = new arrow.List(new arrow.Field("item", new arrow.Int32(), true));
  const struct = new arrow.Struct([new arrow.Field("x", new arrow.Int32(), true), new arrow.Field("y", new arrow.Utf8(), true)]);
  const types = {
    n: new arrow.Int64(), flag: new arrow.Bool(), f: new arrow.Float64(), s: new arrow.Utf8(), b: new arrow.Binary(),
    ts: new arrow.TimestampMillisecond("UTC"), d: new arrow.DateDay(), l: list, st: struct,
    k: new arrow.Dictionary(new arrow.Utf8(), new arrow.Int32()),
  };
  const vectors = {};
  for (const [name, type] of Object.entries(types)) vectors[name] = arrow.vectorFromArray(columns[name], type);
  return arrow.tableToIPC(new arrow.Table(vectors), "stream");
}

function ofFlechette() {
  const { int64, bool, float64, utf8, binary, timestamp, dateDay, list, int32, struct, dictionary, field } = flechette;
  const types = {
    n: int64(), flag: bool(), f: float64(), s: utf8(), b: binary(), ts: timestamp(1, "UTC"), d: dateDay(), l: list(int32()),
    st: struct([field("x", int32()), field("y", utf8())]), k: dictionary(utf8(), int32()),
  };
  const table = flechette.tableFromArrays(columns, { types, useBigInt: true });
  return flechette.tableToIPC(table, { format: "stream" });
}

const [folder] = process.argv.slice(2);
writeFileSync(`${folder}/arrow_js_table.arrows`, ofArrowJs());
writeFileSync(`${folder}/flechette_table.arrows`, ofFlechette());
