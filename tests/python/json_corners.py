"""What pyarrow and DuckDB make of the corners of JSON: prints a list of [pyarrow, DuckDB], in the order of the README's table."""

import io
import json
import os
import sys

import duckdb
import pyarrow
import pyarrow.json

DEPTH, LENGTH = 1_000, 100_000_000
DECIMAL = (pyarrow.decimal128(4, 2), "DECIMAL(4,2)")
INTEGER = (pyarrow.int64(), "BIGINT")
CASES = [
    (b'\xef\xbb\xbf{"v":1}', None),
    (b'{"v":1} x', None),
    (b'{"v":1}{"v":2}', None),
    (b'{"v":1,"v":2}', None),
    (rb'{"v":"\ud800"}', None),
    (b'{"v":"\xff"}', None),
    (b'{"v":NaN}', None),
    (b'{"v":-Infinity}', None),
    (b'{"v":1e999}', None),
    (b'{"v":9223372036854775808}', None),
    (b'{"v":18446744073709551616}', None),
    (b'{"v":0.1}', DECIMAL),
    (b'{"v":"0.105"}', DECIMAL),
    (b'{"v":1.0}', INTEGER),
    (b'{"v":1e2}', INTEGER),
    (b'{"v":' + b"[" * DEPTH + b"]" * DEPTH + b"}", None),
    (b'{"v":"' + b"x" * LENGTH + b'"}', None),
]


def words(data_type, values):
    text = ", ".join(str(value) for value in values)
    return f"{data_type}, {len(text)} characters" if len(text) > 1_000 else f"{data_type} {text}"


def by_pyarrow(text, declared):
    declared = declared and pyarrow.schema([("v", declared[0])])
    try:
        table = pyarrow.json.read_json(
            io.BytesIO(text),
            read_options=pyarrow.json.ReadOptions(block_size=2 * LENGTH),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=declared),
        )
    except pyarrow.ArrowInvalid:
        return "refused"
    column = table["v"]
    depth, data_type = 0, column.type
    while pyarrow.types.is_list(data_type):
        depth, data_type = depth + 1, data_type.value_type
    if depth:
        return f"a type of {depth:,} levels"
    try:
        return words(column.type, column.to_pylist())
    except UnicodeDecodeError:
        return f"{column.type}, not UTF-8"


def by_duckdb(path, declared):
    columns = f", columns={{'v': '{declared[1]}'}}" if declared else ""
    options = f"format='newline_delimited', maximum_object_size={2 * LENGTH}{columns}"
    relation = f"read_json('{path}', {options})"
    try:
        data_type = duckdb.sql(f"SELECT typeof(v) FROM {relation}").fetchall()[0][0]
        depth = data_type.count("[]")
        if depth:
            return f"a type of {depth:,} levels"
        return words(data_type, [row[0] for row in duckdb.sql(f"SELECT v FROM {relation}").fetchall()])
    except duckdb.InvalidInputException:
        return "refused"


order = json.loads(sys.argv[1])
path = os.path.join(order["folder"], "corner.json")
answers = []
for text, declared in CASES:
    with open(path, "wb") as file:
        file.write(text)
    answers.append([by_pyarrow(text, declared), by_duckdb(path, declared)])
print(json.dumps(answers))
