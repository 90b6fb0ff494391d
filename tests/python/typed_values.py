"""Records of Avro, Protobuf and JSON Schema by writers that are not ours, and the rows that must come of them.

    {"do": "schemas", "folder": F}                              writes the schemas: F/order1.avsc, F/order2.avsc, F/order.desc
    {"do": "avro", "folder": F, "rows": N, "ids": [A, B]}       writes F/values.bin and F/expected.parquet
    {"do": "containers", "folder": F, "rows": N}                the same as Avro files of several records with their schema in them
    {"do": "protobuf", "folder": F, "rows": N, "prefix": HEX}   the same as messages behind these bytes
    {"do": "json_schema", "folder": F, "rows": N, "ids": [A]}   the same as JSON behind a number

`avro`, `protobuf` and `json_schema` with {"registry": URL, "topic": T} are written by Confluent's serializers, which register the
schemas themselves; `json_schema` needs the text of its schema then: {"schema": S}.

In values.bin each value stands behind its length, four bytes, the big end first.
"""

import datetime as dt
import decimal
import io
import json
import struct
import sys
import uuid

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

UTC = dt.timezone.utc
START = dt.datetime(2026, 1, 1, tzinfo=UTC)


def field(name, kind, /, **more):
    return {"name": name, "type": {"type": kind, **more} if more else kind}


def avro_schema(version):
    """A schema with every type; the second one counts further and has one field more."""
    inner = {"type": "record", "name": "Inner", "fields": [
        field("x", "long"), {"name": "y", "type": {"type": "array", "items": ["null", "string"]}}]}
    fields = [
        field("id", "long"), field("flag", "boolean"), field("count", "int" if version == 1 else "long"),
        field("single", "float"), field("double", "double"), field("text", "string"), field("bytes", "bytes"),
        field("hash", "fixed", name="Hash", size=4), field("kind", "enum", name="Kind", symbols=["NEW", "OLD", "ODD"]),
        field("day", "int", logicalType="date"), field("clock", "int", logicalType="time-millis"),
        field("clock_us", "long", logicalType="time-micros"), field("at", "long", logicalType="timestamp-millis"),
        field("at_us", "long", logicalType="timestamp-micros"), field("local", "long", logicalType="local-timestamp-millis"),
        field("amount", "bytes", logicalType="decimal", precision=12, scale=2),
        field("wide", "fixed", name="Wide", size=18, logicalType="decimal", precision=40, scale=3),
        field("uid", "string", logicalType="uuid"), {"name": "note", "type": ["null", "string"]},
        field("tags", "array", items="string"), field("prices", "map", values="double"),
        {"name": "inner", "type": inner}, {"name": "again", "type": ["null", "Inner"]},
        {"name": "either", "type": ["null", "long", "string"]},
    ]
    if version == 2:
        fields.append({"name": "extra", "type": ["null", "double"]})
    return {"type": "record", "name": "shop.Order", "fields": fields}


def avro_row(i, version):
    """What fastavro is given."""
    row = {
        "id": i, "flag": i % 2 == 0, "count": i - 500 if version == 1 else i + 2**40, "single": i / 4, "double": i / 3,
        "text": f"täxt {i % 9}", "bytes": bytes([i % 256] * (i % 5)), "hash": (i * 7919).to_bytes(4, "big"),
        "kind": ["NEW", "OLD", "ODD"][i % 3], "day": dt.date(1969, 12, 1) + dt.timedelta(days=i),
        "clock": dt.time(i % 24, i % 60, 2, i % 1000 * 1000), "clock_us": dt.time(i % 24, i % 60, 2, i),
        "at": START + dt.timedelta(milliseconds=i * 1001), "at_us": START - dt.timedelta(microseconds=i * 1001),
        "local": dt.datetime(2026, 3, 1) + dt.timedelta(milliseconds=i),
        "amount": decimal.Decimal(i * 3 - 2000).scaleb(-2), "wide": decimal.Decimal(f"-123456789012345678901234567890{i:04}.125"),
        "uid": uuid.UUID(int=i * 2**90), "note": None if i % 3 == 0 else f"note {i}", "tags": [str(i)] * (i % 4),
        "prices": {"a": i / 2, "b": -1.0} if i % 5 else {}, "inner": {"x": i, "y": [None, "ü"][: i % 3]},
        "again": None if i % 2 else {"x": -i, "y": []}, "either": [None, i, str(i)][i % 3],
    }
    if version == 2:
        row["extra"] = None if i % 7 == 0 else i / 7
    return row


AVRO_TYPES = pa.schema([
    ("id", pa.int64()), ("flag", pa.bool_()), ("count", pa.int64()), ("single", pa.float32()), ("double", pa.float64()),
    ("text", pa.string()), ("bytes", pa.binary()), ("hash", pa.binary()), ("kind", pa.string()), ("day", pa.date32()),
    ("clock", pa.time32("ms")), ("clock_us", pa.time64("us")), ("at", pa.timestamp("ms", "UTC")),
    ("at_us", pa.timestamp("us", "UTC")), ("local", pa.timestamp("ms")), ("amount", pa.decimal128(12, 2)),
    ("wide", pa.decimal256(40, 3)), ("uid", pa.string()), ("note", pa.string()), ("tags", pa.list_(pa.string())),
    ("prices", pa.map_(pa.string(), pa.float64())), ("inner", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    ("again", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    ("either", pa.struct([("long", pa.int64()), ("string", pa.string())])), ("extra", pa.float64()),
])


def avro_expected(row):
    """The same as pyarrow is given it."""
    either = row["either"]
    return {
        **row, "uid": str(row["uid"]), "prices": list(row["prices"].items()), "extra": row.get("extra"),
        "either": None if either is None else {"long": either if isinstance(either, int) else None,
                                               "string": either if isinstance(either, str) else None},
    }


def version_of(i, rows):
    """The second half is mostly of the second version."""
    return 2 if i >= rows // 2 and i % 10 else 1


def save(order, values, rows, types):
    with open(order["folder"] + "/values.bin", "wb") as file:
        for value in values:
            file.write(struct.pack(">I", len(value)) + value)
    pq.write_table(pa.Table.from_pylist(rows, types), order["folder"] + "/expected.parquet")


def confluent(order, kind, *arguments, **more):
    """A function that writes a value as Confluent's clients do."""
    from confluent_kafka.schema_registry import SchemaRegistryClient, avro, json_schema, protobuf
    from confluent_kafka.serialization import MessageField, SerializationContext

    make = {"avro": avro.AvroSerializer, "json": json_schema.JSONSerializer, "protobuf": protobuf.ProtobufSerializer}[kind]
    client = SchemaRegistryClient({"url": order["registry"]})
    first, *rest = arguments
    # Avro takes the client first.
    serializer = make(client, first) if kind == "avro" else make(first, client, *rest, **more)
    return lambda value: serializer(value, SerializationContext(order["topic"], MessageField.VALUE))


def avro_by_hand(schema, number):
    schema = fastavro.parse_schema(schema)

    def write(row):
        out = io.BytesIO(struct.pack(">bI", 0, number))
        out.seek(5)
        fastavro.schemaless_writer(out, schema, row)
        return out.getvalue()

    return write


def avro(order):
    schemas = [avro_schema(version) for version in (1, 2)]
    if "registry" in order:
        write = [confluent(order, "avro", json.dumps(schema)) for schema in schemas]
    else:
        write = [avro_by_hand(schema, number) for schema, number in zip(schemas, order["ids"])]
    values, expected = [], []
    for i in range(order["rows"]):
        version = version_of(i, order["rows"])
        row = avro_row(i, version)
        values.append(write[version - 1](row))
        expected.append(avro_expected(row))
    save(order, values, expected, AVRO_TYPES)


def containers(order):
    values, expected, at = [], [], 0
    while at < order["rows"]:
        version, count, out = len(values) % 2 + 1, len(values) % 7, io.BytesIO()
        rows = [avro_row(i, version) for i in range(at, min(at + count, order["rows"]))]
        codec = ["null", "deflate"][len(values) % 2]
        fastavro.writer(out, fastavro.parse_schema(avro_schema(version)), rows, codec=codec, sync_interval=200)
        values.append(out.getvalue())
        expected.extend(map(avro_expected, rows))
        at += count
    save(order, values, expected, AVRO_TYPES)


def protobuf_file():
    """The descriptor of PROTO in tests/e2e/typed_values.rs, made by hand, so that no compiler is needed."""
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    kind = file.enum_type.add(name="Kind")
    for number, name in enumerate(["NEW", "OLD", "ODD"]):
        kind.value.add(name=name, number=number)
    F = descriptor_pb2.FieldDescriptorProto
    message = file.message_type.add(name="Unused")
    message.field.add(name="a", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    order = file.message_type.add(name="Order")
    inner = order.nested_type.add(name="Inner")
    inner.field.add(name="x", number=1, type=F.TYPE_SINT64, label=F.LABEL_OPTIONAL)
    inner.field.add(name="y", number=2, type=F.TYPE_STRING, label=F.LABEL_REPEATED)
    entry = order.nested_type.add(name="PricesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=F.TYPE_DOUBLE, label=F.LABEL_OPTIONAL)
    scalars = ["int64", "bool", "int32", "sint32", "fixed32", "sfixed64", "uint32", "uint64", "float", "double", "string", "bytes"]
    for number, name in enumerate(scalars, 1):
        order.field.add(name=f"a_{name}", number=number, type=getattr(F, f"TYPE_{name.upper()}"), label=F.LABEL_OPTIONAL)
    def add(name, number, kind, label=F.LABEL_OPTIONAL, of=None):
        return order.field.add(name=name, number=number, type=kind, label=label, type_name=of)
    add("kind", 20, F.TYPE_ENUM, of=".shop.Kind")
    add("inner", 21, F.TYPE_MESSAGE, of=".shop.Order.Inner")
    add("more", 22, F.TYPE_MESSAGE, F.LABEL_REPEATED, ".shop.Order.Inner")
    add("numbers", 23, F.TYPE_INT32, F.LABEL_REPEATED)
    add("prices", 24, F.TYPE_MESSAGE, F.LABEL_REPEATED, ".shop.Order.PricesEntry")
    add("at", 25, F.TYPE_MESSAGE, of=".google.protobuf.Timestamp")
    add("maybe", 26, F.TYPE_MESSAGE, of=".google.protobuf.Int64Value")
    order.oneof_decl.add(name="either")
    order.oneof_decl.add(name="_chosen")
    for name, number, kind in [("left", 27, F.TYPE_INT64), ("right", 28, F.TYPE_STRING)]:
        add(name, number, kind).oneof_index = 0
    chosen = add("chosen", 300, F.TYPE_INT32)
    chosen.oneof_index, chosen.proto3_optional = 1, True
    return file


def protobuf_class():
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(protobuf_file())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


PROTOBUF_TYPES = pa.schema([
    ("a_int64", pa.int64()), ("a_bool", pa.bool_()), ("a_int32", pa.int32()), ("a_sint32", pa.int32()), ("a_fixed32", pa.uint32()),
    ("a_sfixed64", pa.int64()), ("a_uint32", pa.uint32()), ("a_uint64", pa.uint64()), ("a_float", pa.float32()),
    ("a_double", pa.float64()), ("a_string", pa.string()), ("a_bytes", pa.binary()), ("kind", pa.string()),
    ("inner", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    ("more", pa.list_(pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]))), ("numbers", pa.list_(pa.int32())),
    ("prices", pa.map_(pa.string(), pa.float64())), ("at", pa.timestamp("ns", "UTC")), ("maybe", pa.int64()),
    ("left", pa.int64()), ("right", pa.string()), ("chosen", pa.int32()),
])


def protobuf(order):
    make, values, expected = protobuf_class(), [], []
    if "registry" in order:
        write = confluent(order, "protobuf", make, conf={"use.deprecated.format": False})
        prices = lambda i: {"a": i / 2}  # it keeps no order of entries
    else:
        prices = lambda i: {"a": i / 2, "b": 0.0}
        write = lambda message: bytes.fromhex(order["prefix"]) + message.SerializeToString(deterministic=True)
    for i in range(order["rows"]):
        row = {
            "a_int64": -i, "a_bool": i % 2 == 1, "a_int32": i - 700, "a_sint32": 700 - i, "a_fixed32": i * 1_000_003,
            "a_sfixed64": -i * 2**40, "a_uint32": 2**32 - 1 - i, "a_uint64": 2**64 - 1 - i, "a_float": i / 4, "a_double": i / 3,
            "a_string": f"täxt {i}" if i % 4 else "", "a_bytes": bytes([i % 256] * (i % 5)), "kind": ["NEW", "OLD", "ODD"][i % 3],
            "inner": {"x": i, "y": ["ü", ""][: i % 3]} if i % 3 else None,
            "more": [{"x": -n, "y": []} for n in range(i % 3)], "numbers": list(range(-1, i % 5)),
            "prices": prices(i) if i % 4 == 1 else {}, "maybe": None if i % 3 == 1 else i % 2,
            "left": i if i % 3 == 1 else None, "right": str(i) if i % 3 == 2 else None, "chosen": 0 if i % 2 else None,
        }
        message = make()
        for name, value in row.items():
            if value is None:
                continue
            if name == "kind":
                message.kind = i % 3
            elif name == "inner":
                message.inner.SetInParent()
                message.inner.x = value["x"]
                message.inner.y.extend(value["y"])
            elif name == "more":
                for one in value:
                    message.more.add(x=one["x"])
            elif name == "maybe":
                message.maybe.value = value
                message.maybe.SetInParent()
            elif isinstance(value, list):
                getattr(message, name).extend(value)
            elif isinstance(value, dict):
                getattr(message, name).update(value)
            else:
                setattr(message, name, value)
        at = START + dt.timedelta(seconds=i)
        message.at.seconds, message.at.nanos = int(at.timestamp()), i
        row["at"] = int(at.timestamp()) * 10**9 + i
        row["prices"] = sorted(row["prices"].items())
        values.append(write(message))
        expected.append(row)
    save(order, values, expected, PROTOBUF_TYPES)


JSON_TYPES = pa.schema([
    ("id", pa.int64()), ("amount", pa.float64()), ("note", pa.string()), ("day", pa.date32()), ("at", pa.timestamp("us", "UTC")),
    ("tags", pa.list_(pa.string())), ("here", pa.struct([("x", pa.float64())])), ("never", pa.float64()),
])


def json_schema(order):
    values, expected = [], []
    if "registry" in order:
        write = confluent(order, "json", order["schema"])
    else:
        write = lambda row: struct.pack(">bI", 0, order["ids"][0]) + json.dumps(row).encode()
    for i in range(order["rows"]):
        at, day = START + dt.timedelta(milliseconds=i * 1001), dt.date(2026, 1, 1) + dt.timedelta(days=i % 300)
        row = {"id": i, "amount": i if i % 2 else i / 4, "note": None if i % 3 else f"ü{i}", "tags": [str(i)] * (i % 3), "here": {"x": i}}
        written = {**row, "day": day.isoformat(), "at": at.isoformat().replace("+00:00", "Z"), "never": None}
        values.append(write(written))
        expected.append({**row, "amount": float(row["amount"]), "here": {"x": float(i)}, "day": day, "at": at, "never": None})
    save(order, values, expected, JSON_TYPES)


def schemas(order):
    folder = order["folder"]
    for version in (1, 2):
        with open(f"{folder}/order{version}.avsc", "w") as file:
            json.dump(avro_schema(version), file)
    files = descriptor_pb2.FileDescriptorSet()
    for known in (timestamp_pb2, wrappers_pb2):
        files.file.add().ParseFromString(known.DESCRIPTOR.serialized_pb)
    files.file.append(protobuf_file())
    with open(f"{folder}/order.desc", "wb") as file:
        file.write(files.SerializeToString())


order = json.loads(sys.argv[1])
{"schemas": schemas, "avro": avro, "containers": containers, "protobuf": protobuf, "json_schema": json_schema}[order["do"]](order)
