"""The table that every writer writes: streams of Arrow as pyarrow, nanoarrow and, by their own programs beside this one, arrow-js,
flechette and arrow-go make them. They are seeds of the fuzz target `arrow_ipc`, and a test of the host reads each of them.

    python table.py FOLDER         (pyarrow and nanoarrow from PyPI)
"""

import datetime
import decimal
import sys

import nanoarrow
import nanoarrow.ipc
import pyarrow as pa

ROWS = [
    (1, True, 1.5, "one", b"\x01", datetime.datetime(2026, 1, 31, 12), datetime.date(2026, 1, 31), decimal.Decimal("1.25"), [1, 2], {"x": 7, "y": "a"}, "red"),
    (None,) * 11,
    (-3, False, -0.0, "", b"", datetime.datetime(1969, 12, 31, 23), datetime.date(1960, 2, 29), decimal.Decimal("-99.99"), [], {"x": None, "y": None}, "blue"),
    (2**62, True, float("inf"), "größer", b"\xff\x00", None, None, None, [None, -5], {"x": -1, "y": "b"}, "red"),
]

SCHEMA = pa.schema([
    ("n", pa.int64()),
    ("flag", pa.bool_()),
    ("f", pa.float64()),
    ("s", pa.string()),
    ("b", pa.binary()),
    ("ts", pa.timestamp("ms", "UTC")),
    ("d", pa.date32()),
    ("m", pa.decimal128(10, 2)),
    ("l", pa.list_(pa.int32())),
    ("st", pa.struct([("x", pa.int32()), ("y", pa.string())])),
    ("k", pa.dictionary(pa.int32(), pa.string())),
])


def table():
    names = SCHEMA.names
    columns = [pa.array([row[at] for row in ROWS], SCHEMA.field(name).type) for at, name in enumerate(names)]
    return pa.record_batch(columns, schema=SCHEMA)


def main(folder):
    batch = table()
    with pa.ipc.new_stream(f"{folder}/pyarrow_table.arrows", SCHEMA) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch.slice(1, 2))
    # nanoarrow writes no dictionaries and no slices.
    plain = pa.record_batch(batch.columns[:-1], schema=pa.schema(list(SCHEMA)[:-1]))
    with open(f"{folder}/nanoarrow_table.arrows", "wb") as file, nanoarrow.ipc.StreamWriter.from_writable(file) as writer:
        writer.write_stream(pa.RecordBatchReader.from_batches(plain.schema, [plain]))
    print(f"pyarrow {pa.__version__}, nanoarrow {nanoarrow.__version__}")


main(sys.argv[1])
