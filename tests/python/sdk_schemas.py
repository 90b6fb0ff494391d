"""The SDKs for Python and JavaScript read and write Arrow's schema message and raw columns themselves: here pyarrow looks at what they make.

The order names the repository, a folder to write to, and `node` where it is there.
"""

import json
import pathlib
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa

order = json.loads(sys.argv[1])
repository, folder = pathlib.Path(order["repository"]), pathlib.Path(order["folder"])
sys.path.insert(0, str(repository / "sdk/python"))

from fs_data_sink.columns import Column, pack  # noqa: E402
from fs_data_sink.schema import Field, Schema  # noqa: E402

inner = pa.struct([pa.field("x", pa.float32()), pa.field("y", pa.map_(pa.string(), pa.uint8()))])
schema = pa.schema(
    [
        pa.field("a", pa.int64(), False),
        pa.field("b", pa.string()),
        pa.field("t", pa.timestamp("us", "UTC")),
        pa.field("d", pa.decimal128(10, 2)),
        pa.field("l", pa.list_(inner)),
        pa.field("f", pa.binary(16)),
        pa.field("z", pa.bool_()),
        pa.field("D", pa.date32()),
        pa.field("T", pa.time64("ns")),
        pa.field("ll", pa.list_(pa.int8(), 3)),
        pa.field("m", pa.large_string()),
        pa.field("u", pa.duration("s")),
        pa.field("h", pa.float16()),
        pa.field("dd", pa.decimal256(50, 3)),
        pa.field("meta", pa.int8(), metadata={"k": "v"}),
    ]
    + [pa.field(f"{number} {'long' * 20}", pa.int32()) for number in range(50)]
)
whole = schema.serialize().to_pybytes()
added = ["bool", "timestamp(ns, Europe/Berlin)"]


def look(written, extended, who):
    """What an SDK wrote is what pyarrow had, and what was added is there."""
    assert pa.ipc.open_stream(written).schema.equals(schema, check_metadata=True), who
    extended = pa.ipc.open_stream(extended)
    assert extended.schema.field("b").type == pa.timestamp("ns", "Europe/Berlin"), who
    assert extended.schema.names == schema.names + ["n"], who
    assert extended.read_all().num_rows == 0, who


read = Schema.read(whole)
look(read.write(), read.extended([Field("n", added[0]), Field("b", added[1])]).write(), "python")


class Raw:
    """A column as the host hands it over."""

    def __init__(self, packed):
        self.name = "x"
        self.format, self.length, self.null_count, self.validity, self.offsets, self.data = packed


for kind, values in [
    ("int64", [1, None, 2**62, -5]),
    ("uint8", [255, None]),
    ("float64", [1.5, None]),
    ("bool", [True, None, False] * 5),
    ("utf8", ["a", None, "äö", ""]),
    ("binary", [b"ab", None]),
    ("timestamp(us, UTC)", [1, None]),
    ("decimal(10, 2)", [Decimal("1.25"), None, Decimal("-3")]),
]:
    assert Column(Raw(pack(Field("x", kind), values))).values() == values, kind
for kind, value in [("int8", 300), ("int64", "a"), ("utf8", 1), ("decimal(4, 1)", Decimal("1.25"))]:
    try:
        pack(Field("x", kind), [value])
    except TypeError as error:
        assert "'x'" in str(error), error
    else:
        raise AssertionError(f"{value!r} was taken for {kind}")

PROGRAM = """
import { readFileSync, writeFileSync } from "node:fs";
const [sdk] = process.argv.slice(2);
const { Field, Schema } = await import(`${sdk}/schema.js`);
const { column, values } = await import(`${sdk}/columns.js`);
const schema = Schema.read(new Uint8Array(readFileSync("schema")));
writeFileSync("written", schema.write());
writeFileSync("extended", schema.extended([new Field("n", "bool"), new Field("b", "timestamp(ns, Europe/Berlin)")]).write());
for (const [type, list] of [
  ["int64", [1, null, 9007199254740993n, -5]], ["uint8", [255, null]], ["float64", [1.5, null]], ["utf8", ["a", null, "äö", ""]],
  ["bool", [true, null, false, true, true, true, true, true, true]], ["timestamp(us, UTC)", [1, null]],
]) {
  const back = values(column(new Field("x", type), list));
  if (back.length !== list.length || back.some((value, at) => value !== list[at])) throw new Error(`${type}: ${back}`);
}
"""

if order.get("node"):
    (folder / "sdk").mkdir()
    for name in ["schema.js", "columns.js"]:
        (folder / "sdk" / name).write_text((repository / "sdk/javascript" / name).read_text())
    (folder / "sdk/package.json").write_text('{"type": "module"}')
    (folder / "program.mjs").write_text(PROGRAM)
    (folder / "schema").write_bytes(whole)
    subprocess.run([order["node"], "program.mjs", str(folder / "sdk")], cwd=folder, check=True)
    look((folder / "written").read_bytes(), (folder / "extended").read_bytes(), "javascript")
print("right")
