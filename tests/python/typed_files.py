"""Files of all kinds for the file source, and what DuckDB must read of what became of them.

    {"do": "write", "kind": "parquet" | "lines" | "mixed", "rows": N, "folder": F}    writes F/in/* and F/expected.parquet
    {"do": "records", "folder": F, ...}                                               writes Arrow IPC records, one file each
    {"do": "compare", "expected": GLOB, "found": GLOB}                                fails unless rows and types are equal
"""

import datetime as dt
import decimal
import gzip
import json
import os
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


def every(rows, step, make):
    """A value for each row, and null for every `step`th."""
    return [make(row) if row % step else None for row in rows]


def typed(first, last):
    """Rows of many types, all of them with nulls."""
    rows = range(first, last)
    day = dt.date(2026, 1, 1)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    return pa.table({
        "id": pa.array(rows, pa.int64()),
        "tiny": pa.array(every(rows, 3, lambda i: i % 100 - 50), pa.int8()),
        "count": pa.array(every(rows, 5, lambda i: i * 7), pa.uint32()),
        "single": pa.array(every(rows, 4, lambda i: i / 4), pa.float32()),
        "double": pa.array(every(rows, 4, lambda i: i / 3), pa.float64()),
        "flag": pa.array(every(rows, 3, lambda i: i % 2 == 0), pa.bool_()),
        "text": pa.array(every(rows, 4, lambda i: f"täxt {i % 9}"), pa.string()),
        "large": pa.array(every(rows, 4, lambda i: f"large {i}"), pa.large_string()),
        "bytes": pa.array(every(rows, 6, lambda i: bytes([i % 256] * (i % 5))), pa.binary()),
        "hash": pa.array(every(rows, 6, lambda i: i.to_bytes(4, "big")), pa.binary(4)),
        "day": pa.array(every(rows, 7, lambda i: day + dt.timedelta(days=i % 5000)), pa.date32()),
        "clock": pa.array(every(rows, 3, lambda i: dt.time(i % 24, i % 60, 2)), pa.time64("us")),
        "when": pa.array(every(rows, 2, lambda i: start + dt.timedelta(seconds=i)), pa.timestamp("us", "UTC")),
        "local": pa.array(every(rows, 2, lambda i: i), pa.timestamp("ms")),
        "amount": pa.array(every(rows, 3, lambda i: decimal.Decimal(i) / 4), pa.decimal128(12, 2)),
        "wide": pa.array(every(rows, 3, lambda i: decimal.Decimal(10) ** 40 + i), pa.decimal256(50, 2)),
        "word": pa.array(every(rows, 3, lambda i: "abc"[i % 3])).dictionary_encode(),
        "list": pa.array(every(rows, 5, lambda i: list(range(i % 4))), pa.list_(pa.int16())),
        "object": pa.array(
            every(rows, 4, lambda i: {"x": i, "y": [str(i), None]}),
            pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]),
        ),
        "map": pa.array(every(rows, 4, lambda i: [("k", i), ("l", None)]), pa.map_(pa.string(), pa.int32())),
    })


def line(row):
    """A record of JSON."""
    return {"id": row, "text": f"täxt {row % 9}" if row % 4 else None, "tags": [str(row)] * (row % 3)}


def write_ipc(path, table, is_file=False, codec=None):
    """An Arrow stream or file in batches of 700 rows."""
    options = pa.ipc.IpcWriteOptions(compression=codec, unify_dictionaries=True)
    open_writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with pa.OSFile(path, "wb") as sink, open_writer(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=700)


def zstd(path, data):
    """Two frames."""
    codec, half = pa.Codec("zstd"), len(data) // 2
    with open(path, "wb") as file:
        file.write(codec.compress(data[:half], asbytes=True) + codec.compress(data[half:], asbytes=True))


def write(order):
    """The files of a kind, and all their rows as pyarrow writes them."""
    folder, rows = order["folder"], order["rows"]
    inputs = os.path.join(folder, "in")
    os.makedirs(inputs, exist_ok=True)
    if order["kind"] == "parquet":
        expected = typed(0, rows)
        pq.write_table(expected, f"{inputs}/rows.parquet", row_group_size=rows // 3 + 1)
    elif order["kind"] == "lines":
        records = [line(row) for row in range(rows)]
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        middle = text.index(b"\n", len(text) // 2) - 5
        with open(f"{inputs}/lines.gz", "wb") as file:
            file.write(gzip.compress(text[:middle], 1) + gzip.compress(text[middle:], 1))
        schema = [("id", pa.int64()), ("text", pa.string()), ("tags", pa.list_(pa.string()))]
        expected = pa.Table.from_pylist(records, pa.schema(schema))
    else:
        expected, quarter = typed(0, rows), rows // 4
        part = lambda number: expected.slice(number * quarter, quarter if number < 3 else None)
        pq.write_table(part(0), f"{inputs}/a.parquet", compression="zstd", row_group_size=1000)
        write_ipc(f"{inputs}/b.arrow", part(1), is_file=True, codec="lz4")
        write_ipc(f"{inputs}/c.arrows", part(2), codec="zstd")
        write_ipc(f"{inputs}/d.tmp", part(3))
        with open(f"{inputs}/d.tmp", "rb") as file:
            zstd(f"{inputs}/d.arrows.zst", file.read())
        os.remove(f"{inputs}/d.tmp")
    pq.write_table(expected, f"{folder}/expected.parquet")


def records(order):
    """Arrow streams, each a record of its own, and their rows."""
    folder, count = order["folder"], order["records"]
    os.makedirs(folder, exist_ok=True)
    each = order["rows"] // count
    table = typed(0, order["rows"])
    for number in range(count):
        part = table.slice(number * each, each)
        codec = [None, "lz4", "zstd"][number % 3]
        write_ipc(f"{folder}/{number:04}.ipc", part, is_file=number % 2 == 1, codec=codec)
    pq.write_table(table, order["expected"])


def compare(order):
    """Both have the same columns of the same types and the same rows."""
    read = lambda glob: f"SELECT * FROM read_parquet('{glob}', union_by_name = true, hive_partitioning = false)"
    expected, found = read(order["expected"]), read(order["found"])
    types = [
        {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE {query}").fetchall()} for query in (expected, found)
    ]
    assert types[0] == types[1], f"types differ\nwanted: {types[0]}\nfound:  {types[1]}"
    names = ", ".join(f'"{name}"' for name in types[0])
    for one, other, what in [(expected, found, "missing"), (found, expected, "unexpected")]:
        query = f"SELECT {names} FROM ({one}) EXCEPT ALL SELECT {names} FROM ({other})"
        rows = duckdb.sql(f"SELECT COLUMNS(*)::VARCHAR FROM ({query} LIMIT 3)").fetchall()
        assert not rows, f"{what}: {rows}"
    print(json.dumps({"rows": duckdb.sql(f"SELECT count(*) FROM ({found})").fetchone()[0]}))


order = json.loads(sys.argv[1])
{"write": write, "records": records, "compare": compare}[order["do"]](order)
