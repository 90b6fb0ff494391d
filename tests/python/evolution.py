"""Holds files, dead letters and versions of a schema against the records: tests/e2e/evolution.rs says what they are."""

import glob
import json
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

# The types that each column may have over all files.
TYPES = {
    "id": [{"int64"}],
    "a": [{"int64"}, {"double"}, {"int64", "double"}],
    "b": [{"string"}],
    "gone": [{"string"}],
    "c.x": [{"int64"}, {"double"}, {"int64", "double"}],
    "c.y": [{"list<element: int64>"}],
    "d": [{"int64"}, {"string"}],
    "e": [{"timestamp[us, tz=UTC]"}],
}


def leaves(schema):
    for field in schema:
        if pa.types.is_struct(field.type):
            for child in field.type:
                yield f"{field.name}.{child.name}", str(child.type)
        else:
            yield field.name, str(field.type)


def check_types(paths):
    seen = {}
    for path in paths:
        for name, kind in leaves(pq.read_schema(path)):
            seen.setdefault(name, set()).add(kind)
    assert set(seen) == set(TYPES), seen
    for name, kinds in seen.items():
        assert kinds in TYPES[name], (name, kinds)
    return seen


def check_versions(versions):
    names = [[part["name"] for part in version["fields"] if "in" not in part] for version in versions]
    assert len(names) >= 4, names
    for before, after in zip(names, names[1:]):
        assert set(before) <= set(after), (before, after)


def row_of(record):
    c = record.get("c")
    return {
        "id": record["id"],
        "a": None if record.get("a") is None else float(record["a"]),
        "b": record.get("b"),
        "gone": record.get("gone"),
        "x": None if c is None else float(c["x"]),
        "y": None if c is None else c.get("y"),
        "d": None if record.get("d") is None else str(record["d"]),
        "e": None if record.get("e") is None else 1795521600250000,
    }


def main():
    folder = json.loads(sys.argv[1])["folder"]
    paths = sorted(glob.glob(folder + "/files/*.parquet"))
    letters = json.load(open(folder + "/letters.json"))
    seen = check_types(paths)
    check_versions(json.load(open(folder + "/versions.json")))
    query = """SELECT id, a::DOUBLE AS a, b, gone, c.x::DOUBLE AS x, c.y AS y, d::VARCHAR AS d, epoch_us(e) AS e
        FROM read_parquet(?, union_by_name = true)"""
    found = {}
    cursor = duckdb.execute(query, [paths])
    names = [column[0] for column in cursor.description]
    for values in cursor.fetchall():
        row = dict(zip(names, values))
        assert row["id"] not in found, f"twice: {row}"
        found[row["id"]] = row
    refused = {letter["id"]: letter for letter in letters}
    assert len(refused) == len(letters), "a letter twice"
    for line in open(folder + "/records.ndjson"):
        record = json.loads(line)
        number = record["id"]
        a_fits = not isinstance(record.get("a"), str)
        d_fits = record.get("d") is None or isinstance(record["d"], str) == (seen["d"] == {"string"})
        if a_fits and d_fits:
            assert number not in refused, refused[number]
            assert found.pop(number) == row_of(record), record
        else:
            assert number not in found, record
            assert "wrong-type" in refused.pop(number)["reason"]
    assert not found and not refused, (len(found), len(refused))
    print(f"all records are there, {len(letters)} of them refused, in {len(paths)} files")


main()
