"""Looks at files that were written with every option of the Parquet writer: tests/e2e/parquet.rs says which."""

import glob
import json
import sys

import duckdb
import pyarrow.parquet as pq

COLUMNS = {
    "id": {"codec": "ZSTD", "has": "DELTA_BINARY_PACKED", "not": "RLE_DICTIONARY", "statistics": True, "pages": True},
    "country": {"codec": "ZSTD", "has": "RLE_DICTIONARY", "not": "PLAIN_DICTIONARY", "statistics": True, "pages": False},
    "text": {"codec": "UNCOMPRESSED", "has": "DELTA_BYTE_ARRAY", "not": "RLE_DICTIONARY", "statistics": False, "pages": False},
    "amount": {"codec": "GZIP", "has": "BYTE_STREAM_SPLIT", "not": "RLE_DICTIONARY", "statistics": True, "pages": False},
    "user.name": {"codec": "ZSTD", "has": "RLE_DICTIONARY", "not": "PLAIN_DICTIONARY", "statistics": True, "pages": False},
    "user.age": {"codec": "ZSTD", "has": "RLE_DICTIONARY", "not": "PLAIN_DICTIONARY", "statistics": True, "pages": False},
}


def check_group(path, file, number):
    group = file.metadata.row_group(number)
    assert group.num_rows <= 4000, (path, number, group.num_rows)
    order = [(key.column_index, key.descending, key.nulls_first) for key in group.sorting_columns]
    assert order == [(1, True, True), (4, False, False)], (path, order)
    for at in range(group.num_columns):
        column = group.column(at)
        wanted = COLUMNS[column.path_in_schema]
        told = (path, column.path_in_schema, column.compression, column.encodings)
        assert column.compression == wanted["codec"], told
        assert wanted["has"] in column.encodings and wanted["not"] not in column.encodings, told
        assert column.is_stats_set == wanted["statistics"], told
        assert column.has_column_index == wanted["pages"], told
    rows = file.read_row_group(number, columns=["country", "user"]).to_pylist()

    def key(row):
        name = row["user"]["name"] if row["user"] else None
        country = row["country"]
        # The largest country first and nulls before it; then names, and nulls behind them.
        return (country is not None, [-ord(letter) for letter in country or ""], name is None, name or "")

    keys = [key(row) for row in rows]
    assert keys == sorted(keys), (path, number)


def pages_of(path, column):
    query = "SELECT bloom_filter_offset FROM parquet_metadata(?) WHERE path_in_schema = ?"
    return [offset for (offset,) in duckdb.execute(query, [path, column]).fetchall()]


def main():
    order = json.loads(sys.argv[1])
    paths = sorted(glob.glob(order["lake"] + "/options/**/*.parquet", recursive=True))
    for path in paths:
        file = pq.ParquetFile(path)
        for number in range(file.metadata.num_row_groups):
            check_group(path, file, number)
        assert all(offset is not None for offset in pages_of(path, "user, name")), path
        assert all(offset is None for offset in pages_of(path, "id")), path
    found = "SELECT id, country, text, amount, user FROM read_parquet(?)"
    given = "SELECT id, country, text, amount, user FROM read_json(?, columns={id: 'BIGINT', country: 'VARCHAR', text: 'VARCHAR', "
    given += "amount: 'DOUBLE', user: 'STRUCT(name VARCHAR, age INTEGER)'})"
    for left, right in [((found, paths), (given, order["input"])), ((given, order["input"]), (found, paths))]:
        query = f"SELECT count(*) FROM (({left[0]}) EXCEPT ALL ({right[0]}))"
        assert duckdb.execute(query, [left[1], right[1]]).fetchone() == (0,), left
    rows = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [paths]).fetchone()[0]
    print(json.dumps({"files": len(paths), "rows": rows}))


main()
