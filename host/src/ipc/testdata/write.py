"""Writes testdata of the untrusted-IPC reader: one table in every way in which pyarrow writes it."""
import datetime as dt
from decimal import Decimal
import pyarrow as pa

rows = 200
every = lambda step, make: [make(i) if i % step else None for i in range(rows)]
table = pa.table({
    "i8": pa.array(every(3, lambda i: i % 100), pa.int8()),
    "u32": pa.array(every(5, lambda i: i * 7), pa.uint32()),
    "half": pa.array([float(i) / 2 for i in range(rows)], pa.float32()).cast(pa.float16()),
    "text": pa.array(every(4, lambda i: f"text {i % 9}"), pa.string()),
    "large": pa.array(every(4, lambda i: f"large {i}"), pa.large_string()),
    "bytes": pa.array(every(6, lambda i: bytes([i % 256] * (i % 5))), pa.binary()),
    "day": pa.array(every(7, lambda i: dt.date(2026, 1, 1) + dt.timedelta(days=i)), pa.date64()),
    "clock": pa.array(every(3, lambda i: dt.time(i % 24, 1, 2)), pa.time32("s")),
    "when": pa.array(every(2, lambda i: i), pa.timestamp("s", "Europe/Berlin")),
    "amount": pa.array(every(3, lambda i: Decimal(i) / 4), pa.decimal128(12, 2)),
    "word": pa.array(every(3, lambda i: ["a", "b", "c"][i % 3])).dictionary_encode(),
    "code": pa.array(every(3, lambda i: i % 4), pa.int64()).dictionary_encode(),
    "list": pa.array(every(5, lambda i: list(range(i % 4))), pa.list_(pa.int16())),
    "pair": pa.array(every(5, lambda i: [i, None]), pa.list_(pa.int32(), 2)),
    "object": pa.array(every(4, lambda i: {"x": i, "y": [str(i)]}), pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    "map": pa.array(every(4, lambda i: [("k", i)]), pa.map_(pa.string(), pa.int32())),
    "nothing": pa.nulls(rows),
})
for codec in [None, "lz4", "zstd"]:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    name = codec or "plain"
    with pa.OSFile(f"typed_{name}.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=80)
    with pa.OSFile(f"typed_{name}.arrows", "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=80)
# A dictionary that is sent anew in the middle of a stream.
with pa.OSFile("dictionary_again.arrows", "wb") as sink:
    schema = pa.schema([("word", pa.dictionary(pa.int8(), pa.string()))])
    with pa.ipc.new_stream(sink, schema) as writer:
        for words in (["a", "b"], ["c", "a"]):
            writer.write_batch(pa.record_batch([pa.array(words).dictionary_encode().cast(schema.field(0).type)], schema=schema))
