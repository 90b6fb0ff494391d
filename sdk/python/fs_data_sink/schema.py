"""The schema of rows: Arrow's schema message, read and written without an Arrow library.

A message is a FlatBuffer; what is here of that format is what a schema needs.
"""

import re
import struct

# Arrow's types by their number, with the fields of each: name, how `struct` reads it, default. `str` is a text.
_TYPES = {
    2: ("int", [("bits", "i", 0), ("signed", "?", False)]),
    3: ("float", [("precision", "h", 0)]),
    4: ("binary", []),
    5: ("utf8", []),
    6: ("bool", []),
    7: ("decimal", [("precision", "i", 0), ("scale", "i", 0), ("bits", "i", 128)]),
    8: ("date", [("unit", "h", 1)]),
    9: ("time", [("unit", "h", 1), ("bits", "i", 32)]),
    10: ("timestamp", [("unit", "h", 0), ("zone", "str", None)]),
    11: ("interval", [("unit", "h", 0)]),
    12: ("list", []),
    13: ("struct", []),
    15: ("fixed_size_binary", [("width", "i", 0)]),
    16: ("fixed_size_list", [("size", "i", 0)]),
    17: ("map", [("sorted", "?", False)]),
    18: ("duration", [("unit", "h", 1)]),
    19: ("large_binary", []),
    20: ("large_utf8", []),
    21: ("large_list", []),
}
_NUMBERS = {name: number for number, (name, _) in _TYPES.items()}
_UNITS = ["s", "ms", "us", "ns"]
_LETTERS = {"s": "s", "ms": "m", "us": "u", "ns": "n"}


class Field:
    """A column: its name, and its type in words: "bool", "int8" to "uint64", "float32", "float64", "utf8", "binary", "date32",
    "timestamp(us)", "timestamp(us, UTC)", "decimal(10, 2)"."""

    def __init__(self, name, type, nullable=True):
        self.name, self.nullable, self.children, self.metadata = name, nullable, [], []
        self.kind, self.facts = _parse(type)

    @property
    def type(self):
        """The type in words."""
        kind, facts = self.kind, self.facts
        if kind == "int":
            return f"{'' if facts['signed'] else 'u'}int{facts['bits']}"
        if kind == "float":
            return ("float16", "float32", "float64")[facts["precision"]]
        if kind == "date":
            return ("date32", "date64")[facts["unit"]]
        if kind in ("time", "duration"):
            return f"{kind}({_UNITS[facts['unit']]})"
        if kind == "timestamp":
            zone = f", {facts['zone']}" if facts["zone"] else ""
            return f"timestamp({_UNITS[facts['unit']]}{zone})"
        if kind == "decimal":
            return f"decimal({facts['precision']}, {facts['scale']})"
        return kind

    def format(self):
        """The type in the notation of Arrow's C data interface."""
        kind, facts = self.kind, self.facts
        if kind == "int":
            letter = {8: "c", 16: "s", 32: "i", 64: "l"}[facts["bits"]]
            return letter if facts["signed"] else letter.upper()
        if kind == "float":
            return "efg"[facts["precision"]]
        if kind == "decimal":
            bits = "" if facts["bits"] == 128 else f",{facts['bits']}"
            return f"d:{facts['precision']},{facts['scale']}{bits}"
        if kind == "date":
            return ("tdD", "tdm")[facts["unit"]]
        if kind == "timestamp":
            return f"ts{_LETTERS[_UNITS[facts['unit']]]}:{facts['zone'] or ''}"
        if kind in ("time", "duration"):
            return f"t{'t' if kind == 'time' else 'D'}{_LETTERS[_UNITS[facts['unit']]]}"
        return {"bool": "b", "utf8": "u", "binary": "z"}.get(kind, kind)

    def __repr__(self):
        return f"Field({self.name!r}, {self.type!r})"


def _parse(words):
    """Kind and facts of a type in words."""
    if words in ("utf8", "binary", "bool"):
        return words, {}
    if words == "string":
        return "utf8", {}
    if match := re.fullmatch(r"(u?)int(8|16|32|64)", words):
        return "int", {"bits": int(match[2]), "signed": not match[1]}
    if match := re.fullmatch(r"float(16|32|64)", words):
        return "float", {"precision": {"16": 0, "32": 1, "64": 2}[match[1]]}
    if words in ("date32", "date64"):
        return "date", {"unit": int(words == "date64")}
    if match := re.fullmatch(r"timestamp\((s|ms|us|ns)(?:, ?(.+))?\)", words):
        return "timestamp", {"unit": _UNITS.index(match[1]), "zone": match[2]}
    if match := re.fullmatch(r"(time|duration)\((s|ms|us|ns)\)", words):
        unit = _UNITS.index(match[2])
        return match[1], {"unit": unit, "bits": 32 if unit < 2 else 64} if match[1] == "time" else {"unit": unit}
    if match := re.fullmatch(r"decimal\((\d+), ?(-?\d+)\)", words):
        precision = int(match[1])
        return "decimal", {"precision": precision, "scale": int(match[2]), "bits": 128 if precision <= 38 else 256}
    raise ValueError(f"{words!r} is no type that this SDK writes")


class Schema:
    """The columns of rows."""

    def __init__(self, fields):
        self.fields = list(fields)

    def __iter__(self):
        return iter(self.fields)

    def position(self, name):
        """The number of a column."""
        for at, field in enumerate(self.fields):
            if field.name == name:
                return at
        raise KeyError(f"the rows have no column {name!r}; they have: {', '.join(field.name for field in self.fields)}")

    def require(self, name, *types):
        """The field of a column that has to be there, of one of some types where they are named."""
        from . import UnsupportedSchema

        try:
            field = self.fields[self.position(name)]
        except KeyError as error:
            raise UnsupportedSchema(error.args[0]) from None
        if types and field.type not in types:
            raise UnsupportedSchema(f"column {name!r} is of type {field.type}; expected {' or '.join(types)}")
        return field

    def extended(self, fields):
        """The same with fields added, or put in the place of those of the same name."""
        new = {field.name: field for field in fields}
        names = {field.name for field in self.fields}
        kept = [new.get(field.name, field) for field in self.fields]
        return Schema(kept + [field for field in fields if field.name not in names])

    @staticmethod
    def read(stream):
        """From an Arrow IPC stream that begins with a schema."""
        begin = 8 if stream[:4] == b"\xff\xff\xff\xff" else 4
        message = _Table.root(stream[begin:])
        return Schema(_read_field(field) for field in message.table(2).tables(1))

    def write(self):
        """As an Arrow IPC stream of nothing but the schema."""
        builder = _Builder()
        schema = builder.table([(0, "h", 0), (1, "offset", ("vector", [_write_field(field) for field in self.fields]))])
        message = builder.finish([(0, "h", 4), (1, "B", 1), (2, "offset", schema), (3, "q", 0)])
        message += bytes(-len(message) % 8)
        return b"\xff\xff\xff\xff" + struct.pack("<i", len(message)) + message + b"\xff\xff\xff\xff\0\0\0\0"


class _Table:
    """A table of a FlatBuffer."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.entries = at - struct.unpack_from("<i", data, at)[0]
        self.size = struct.unpack_from("<H", data, self.entries)[0]

    @staticmethod
    def root(data):
        return _Table(data, struct.unpack_from("<I", data)[0])

    def place(self, number):
        """Where a field is; None where it is not."""
        entry = 4 + 2 * number
        if entry + 2 > self.size:
            return None
        offset = struct.unpack_from("<H", self.data, self.entries + entry)[0]
        return self.at + offset if offset else None

    def scalar(self, number, letter, default):
        place = self.place(number)
        return default if place is None else struct.unpack_from("<" + letter, self.data, place)[0]

    def target(self, number):
        place = self.place(number)
        return None if place is None else place + struct.unpack_from("<I", self.data, place)[0]

    def table(self, number):
        target = self.target(number)
        return None if target is None else _Table(self.data, target)

    def text(self, number):
        target = self.target(number)
        if target is None:
            return None
        length = struct.unpack_from("<I", self.data, target)[0]
        return bytes(self.data[target + 4 : target + 4 + length]).decode()

    def tables(self, number):
        target = self.target(number)
        if target is None:
            return []
        count = struct.unpack_from("<I", self.data, target)[0]
        places = [target + 4 + 4 * at for at in range(count)]
        return [_Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]


def _read_field(table):
    """A field with its children and its metadata."""
    number = table.scalar(2, "B", 0)
    if number not in _TYPES:
        raise ValueError(f"column {table.text(0)!r} has a type that this SDK does not know (number {number})")
    kind, facts = _TYPES[number]
    own = table.table(3)
    field = Field.__new__(Field)
    field.name, field.nullable, field.kind = table.text(0) or "", table.scalar(1, "?", False), kind
    field.facts = {
        name: own.text(at) if letter == "str" else own.scalar(at, letter, default)
        for at, (name, letter, default) in enumerate(facts)
    }
    field.children = [_read_field(child) for child in table.tables(5)]
    field.metadata = [(pair.text(0) or "", pair.text(1) or "") for pair in table.tables(6)]
    return field


def _write_field(field):
    """A field as a table for the builder."""
    facts = []
    for at, (name, letter, _) in enumerate(_TYPES[_NUMBERS[field.kind]][1]):
        value = field.facts[name]
        if letter != "str":
            facts.append((at, letter, value))
        elif value is not None:
            facts.append((at, "offset", ("text", value)))
    parts = [
        (0, "offset", ("text", field.name)),
        (1, "?", field.nullable),
        (2, "B", _NUMBERS[field.kind]),
        (3, "offset", ("table", facts)),
        (5, "offset", ("vector", [_write_field(child) for child in field.children])),
    ]
    if field.metadata:
        pairs = [("table", [(0, "offset", ("text", key)), (1, "offset", ("text", value))]) for key, value in field.metadata]
        parts.append((6, "offset", ("vector", pairs)))
    return ("table", parts)


class _Builder:
    """Writes a FlatBuffer from its front: what a table points to comes behind it, as offsets have to point forwards."""

    @staticmethod
    def table(parts):
        return ("table", parts)

    def finish(self, parts):
        self.data = bytearray(8)
        struct.pack_into("<I", self.data, 0, self._put(("table", parts)))
        return bytes(self.data)

    def _align(self, to):
        self.data += bytes(-len(self.data) % to)

    def _put(self, what):
        kind, content = what
        return getattr(self, "_put_" + kind)(content)

    def _put_text(self, text):
        self._align(4)
        at, text = len(self.data), text.encode()
        self.data += struct.pack("<I", len(text)) + text + b"\0"
        return at

    def _put_vector(self, items):
        self._align(4)
        at = len(self.data)
        self.data += struct.pack("<I", len(items)) + bytes(4 * len(items))
        for number, item in enumerate(items):
            place = at + 4 + 4 * number
            struct.pack_into("<I", self.data, place, self._put(item) - place)
        return at

    def _put_table(self, parts):
        slots = max((number for number, _, _ in parts), default=-1) + 1
        # All values begin at multiples of 8 from the table's begin, which makes any of them aligned.
        self._align(8)
        entries = len(self.data)
        size = 4 + 2 * slots
        self.data += bytes(size)
        self._align(8)
        at = len(self.data)
        self.data += bytes(8 + 8 * len(parts))
        struct.pack_into("<HH", self.data, entries, size, 8 + 8 * len(parts))
        struct.pack_into("<i", self.data, at, at - entries)
        for order, (number, letter, value) in enumerate(parts):
            place = at + 8 + 8 * order
            struct.pack_into("<H", self.data, entries + 4 + 2 * number, place - at)
            if letter == "offset":
                struct.pack_into("<I", self.data, place, self._put(value) - place)
            else:
                struct.pack_into("<" + letter, self.data, place, value)
        return at
