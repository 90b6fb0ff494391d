"""Raw Arrow buffers to Python values, and back."""

import struct
from decimal import Decimal

# Formats of the C data interface by how `struct` reads one value.
_FIXED = {
    "c": "b", "C": "B", "s": "h", "S": "H", "i": "i", "I": "I", "l": "q", "L": "Q", "e": "e", "f": "f", "g": "d",
    "tdD": "i", "tdm": "q", "tts": "i", "ttm": "i", "ttu": "q", "ttn": "q", "tiM": "i",
}  # fmt: skip


def _letter(form):
    """How one value is read by `struct`; None where it is not that simple."""
    if form.startswith(("ts", "tD")):
        return "q"
    return _FIXED.get(form)


def _decimal(form):
    """Scale and bytes of a decimal."""
    parts = [int(part) for part in form[2:].split(",")]
    return parts[1], (parts[2] if len(parts) > 2 else 128) // 8


class Column:
    """The buffers of one column."""

    def __init__(self, raw):
        self.raw = raw

    def values(self):
        """The values; None where there is none."""
        raw, form, length = self.raw, self.raw.format, self.raw.length
        letter = _letter(form)
        if letter:
            values = list(struct.unpack_from(f"<{length}{letter}", raw.data))
        elif form == "b":
            values = _bits(raw.data, length)
        elif form in "uz":
            ends = struct.unpack_from(f"<{length + 1}i", raw.offsets)
            values = [raw.data[begin:end] for begin, end in zip(ends, ends[1:])]
            if form == "u":
                values = [value.decode() for value in values]
        elif form.startswith("w:"):
            width = int(form[2:])
            values = [raw.data[at : at + width] for at in range(0, length * width, width)]
        elif form.startswith("d:"):
            scale, width = _decimal(form)
            whole = (int.from_bytes(raw.data[at : at + width], "little", signed=True) for at in range(0, length * width, width))
            values = [Decimal(value).scaleb(-scale) for value in whole]
        else:
            raise TypeError(f"column {raw.name!r} has the format {form!r}, which this SDK does not read")
        if raw.validity is None:
            return values
        return [value if valid else None for value, valid in zip(values, _bits(raw.validity, length))]


def _bits(data, length):
    """Truths of a bitmap, least significant bit first."""
    return [bool(data[at >> 3] >> (at & 7) & 1) for at in range(length)]


def bitmap(truths):
    """A bitmap of truths."""
    bits = bytearray((len(truths) + 7) // 8)
    for at, truth in enumerate(truths):
        if truth:
            bits[at >> 3] |= 1 << (at & 7)
    return bytes(bits)


def pack(field, values):
    """The buffers of values: format, length, number of nulls, validity, offsets, data."""
    form = field.format()
    valid = [value is not None for value in values]
    nulls = len(values) - sum(valid)
    validity = bitmap(valid) if nulls else None
    offsets, letter = None, _letter(form)
    try:
        if letter:
            data = struct.pack(f"<{len(values)}{letter}", *(0 if value is None else value for value in values))
        elif form == "b":
            data = bitmap(values)
        elif form in "uz":
            parts = [b"" if value is None else value.encode() if form == "u" else value for value in values]
            ends = [0]
            for part in parts:
                ends.append(ends[-1] + len(part))
            offsets, data = struct.pack(f"<{len(ends)}i", *ends), b"".join(parts)
        elif form.startswith("d:"):
            scale, width = _decimal(form)
            data = b"".join(_whole(value, scale).to_bytes(width, "little", signed=True) for value in values)
        else:
            raise TypeError(f"this SDK does not write the type {field.type!r}")
    except (struct.error, AttributeError, OverflowError) as error:
        raise TypeError(f"a value of column {field.name!r} is no {field.type}: {error}") from error
    return form, len(values), nulls, validity, offsets, data


def _whole(value, scale):
    """A decimal as a whole number of its last digit."""
    if value is None:
        return 0
    whole = Decimal(value).scaleb(scale)
    if whole != whole.to_integral_value():
        raise OverflowError(f"{value} has more than {scale} digits behind the point")
    return int(whole)
