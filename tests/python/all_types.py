"""Writes `all_types.arrows` into the order's folder: three rows with a column of every type that a plugin may be given."""

import json
import pathlib
import sys
from decimal import Decimal

import pyarrow as pa

order = json.loads(sys.argv[1])
inner = pa.struct([pa.field("x", pa.float32()), pa.field("y", pa.map_(pa.string(), pa.uint8()))])
columns = {
    "a": pa.array([1, 2, 3], pa.int64()),
    "b": pa.array(["a", None, "größe"]),
    "t": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
    "n": pa.array([1, None, 3], pa.timestamp("ms")),
    "d": pa.array([Decimal("1.25"), None, Decimal("-3")], pa.decimal128(10, 2)),
    "l": pa.array([[{"x": 1.5, "y": [("k", 1)]}], None, []], pa.list_(inner)),
    "f": pa.array([b"0" * 16, None, b"1" * 16], pa.binary(16)),
    "z": pa.array([True, None, False]),
    "D": pa.array([1, None, 3], pa.date32()),
    "T": pa.array([1, None, 3], pa.time64("ns")),
    "ll": pa.array([[1, 2, 3], None, [4, 5, 6]], pa.list_(pa.int8(), 3)),
    "m": pa.array(["a", None, "b"], pa.large_string()),
    "u": pa.array([1, None, 3], pa.duration("s")),
    "h": pa.array([1, None, 3], pa.uint16()),
    "dd": pa.array([Decimal("1.250"), None, Decimal("3")], pa.decimal256(50, 3)),
}
fields = [pa.field(name, column.type, name != "a") for name, column in columns.items()]
fields += [pa.field("meta", pa.int8(), metadata={"k": "v"})] + [pa.field(f"{number} {'long' * 20}", pa.int32()) for number in range(50)]
arrays = list(columns.values()) + [pa.array([1, None, 3], pa.int8())] + [pa.array([1, None, 3], pa.int32())] * 50
schema = pa.schema(fields)
with pa.ipc.new_stream(pathlib.Path(order["folder"]) / "all_types.arrows", schema) as writer:
    writer.write(pa.record_batch(arrays, schema=schema))
