"""Writes `all_types.arrows` into the order's folder: three rows with a column of every type that a pipeline reads."""

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
    "h": pa.array([1, None, 3], pa.uint16()),
    "i8": pa.array([-128, None, 127], pa.int8()),
    "i16": pa.array([-32768, None, 32767], pa.int16()),
    "i32": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
    "u8": pa.array([0, None, 255], pa.uint8()),
    "u32": pa.array([0, None, 2**32 - 1], pa.uint32()),
    "u64": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "f32": pa.array([-1.5, None, 0.25], pa.float32()),
    "f64": pa.array([-1.5, None, 1e300], pa.float64()),
    "bytes": pa.array([b"a", None, b""], pa.binary()),
    "D64": pa.array([86400000, None, 0], pa.date64()),
    "T32": pa.array([1, None, 3], pa.time32("ms")),
    "tz": pa.array([-1, None, 3], pa.timestamp("ns", "Europe/Berlin")),
    "d18": pa.array([Decimal(-5), None, Decimal(10**17)], pa.decimal128(18, 0)),
    "dd": pa.array([Decimal("1.250"), None, Decimal("3")], pa.decimal256(50, 3)),
}
fields = [pa.field(name, column.type, name != "a") for name, column in columns.items()]
fields += [pa.field("meta", pa.int8(), metadata={"k": "v"})] + [pa.field(f"{number} {'long' * 20}", pa.int32()) for number in range(50)]
arrays = list(columns.values()) + [pa.array([1, None, 3], pa.int8())] + [pa.array([1, None, 3], pa.int32())] * 50
schema = pa.schema(fields)
with pa.ipc.new_stream(pathlib.Path(order["folder"]) / "all_types.arrows", schema) as writer:
    writer.write(pa.record_batch(arrays, schema=schema))
