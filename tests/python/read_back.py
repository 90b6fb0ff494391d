"""Reads all `**/*.parquet` of a lake with DuckDB or pyarrow and writes one canonical JSON line a row.

Argument: JSON with `lake`, `reader`, `partition_columns` (read as text from the directories) and `rows`, the file to write.
The last line on standard output is JSON: `types` as the reader names them, `files`, `rows`.

Canonical: names in order, no white space; floats by their bits, times as microseconds, dates, decimals and bytes as
text, so that nothing is lost on the way through JSON.
"""

import base64
import json
import pathlib
import re
import sys
import tempfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lake import Lake


def canonical(array):
    """The values of an Arrow array as Python values that JSON can hold."""
    kind = array.type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        columns = [canonical(column) for column in array.flatten()]
        valid = array.is_valid().to_pylist()
        return [dict(zip(names, row)) if there else None for there, row in zip(valid, zip(*columns))]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items, rows, start = canonical(array.flatten()), [], 0
        for length in pc.list_value_length(array).to_pylist():
            rows.append(None if length is None else items[start : start + length])
            start += length or 0
        return rows
    if pa.types.is_float64(kind) or pa.types.is_float32(kind):
        bits, digits = (64, 16) if pa.types.is_float64(kind) else (32, 8)
        whole = array.view(pa.uint64() if bits == 64 else pa.uint32()).to_pylist()
        return [None if value is None else f"f{bits}:{value:0{digits}x}" for value in whole]
    if pa.types.is_timestamp(kind):
        micros = array.cast(pa.timestamp("us", kind.tz)).view(pa.int64()).to_pylist()
        return [None if value is None else f"us:{value}" for value in micros]
    if pa.types.is_date(kind):
        return [None if value is None else f"date:{value:%Y-%m-%d}" for value in array.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else f"decimal:{value}" for value in array.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else "base64:" + base64.b64encode(value).decode() for value in array.to_pylist()]
    return array.to_pylist()


def with_duckdb(folder, partition_columns):
    """Batches and types as DuckDB sees them."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    hive = "{" + ", ".join(f"'{name}': VARCHAR" for name in partition_columns) + "}"
    types = f", hive_types = {hive}" if partition_columns else ""
    # pathlib's and DuckDB's globs agree on `**`; the folder's own name has no glob characters.
    query = f"from read_parquet('{folder}/**/*.parquet', hive_partitioning = {bool(partition_columns)}{types}, union_by_name = true)"
    described = connection.execute("describe " + query).fetchall()
    batches = connection.execute(query).to_arrow_reader(65_536)
    return batches, {row[0]: row[1] for row in described}


def with_pyarrow(folder, partition_columns):
    """Batches and types as pyarrow sees them."""
    schema = pa.schema([(name, pa.string()) for name in partition_columns])
    partitioning = ds.partitioning(schema, flavor="hive") if partition_columns else None
    # Explicit files: pyarrow's own search leaves out names that begin with `_`, and nothing may be hidden there.
    paths = sorted(str(path) for path in pathlib.Path(folder).rglob("*.parquet"))
    dataset = ds.dataset(paths, format="parquet", partitioning=partitioning, partition_base_dir=str(folder))
    # The name of a list's element is no part of its type: writers differ in it and readers go by position.
    kind = lambda field: re.sub(r"list<\w+: ", "list<", str(field.type))
    types = {field.name: kind(field) + ("" if field.nullable else " not null") for field in dataset.schema}
    return dataset.to_batches(batch_size=65_536), types


def main():
    order = json.loads(sys.argv[1])
    lake = Lake(order["lake"])
    with tempfile.TemporaryDirectory(prefix="read-back-") as folder:
        # A copy with the same names: DuckDB has no S3 reader without a download.
        files = 0
        for path, _, _ in lake.parquet():
            target = pathlib.Path(folder) / path[len(lake.root) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(lake.read(path))
            files += 1
        count, types = 0, {}
        with open(order["rows"], "w", encoding="utf-8", newline="\n") as rows:
            if files:
                read = with_duckdb if order["reader"] == "duckdb" else with_pyarrow
                batches, types = read(folder, order["partition_columns"])
                for batch in batches:
                    names = batch.schema.names
                    for row in zip(*[canonical(column) for column in batch.columns]):
                        line = dict(zip(names, row))
                        rows.write(json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
                        rows.write("\n")
                    count += batch.num_rows
    print(json.dumps({"types": types, "files": files, "rows": count}))


main()
