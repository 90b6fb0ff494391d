// Raw Arrow buffers to values, and back.

const FIXED = {
  c: Int8Array, C: Uint8Array, s: Int16Array, S: Uint16Array, i: Int32Array, I: Uint32Array, l: BigInt64Array, L: BigUint64Array,
  f: Float32Array, g: Float64Array, tdD: Int32Array, tdm: BigInt64Array, tts: Int32Array, ttm: Int32Array, ttu: BigInt64Array,
  ttn: BigInt64Array, tiM: Int32Array,
};

/** The typed array of a format; undefined where there is none. */
function arrayOf(format) {
  return format.startsWith("ts") || format.startsWith("tD") ? BigInt64Array : FIXED[format];
}

/** Truths of a bitmap, least significant bit first. */
export function truths(data, length) {
  return Array.from({ length }, (_, at) => ((data[at >> 3] >> (at & 7)) & 1) === 1);
}

/** A bitmap of truths. */
export function bits(values) {
  const data = new Uint8Array((values.length + 7) >> 3);
  values.forEach((value, at) => {
    if (value) data[at >> 3] |= 1 << (at & 7);
  });
  return data;
}

/** A BigInt as a number where that is exact. */
function plain(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** The values of a column; null where there is none. */
export function values({ name, format, length, validity, offsets, data }) {
  const Typed = arrayOf(format);
  let found;
  if (Typed) {
    // A copy of its own, since the bytes of a typed array have to begin at a multiple of their width.
    const typed = new Typed(data.slice(0, length * Typed.BYTES_PER_ELEMENT).buffer);
    found = Array.from(typed, Typed.name.startsWith("Big") ? plain : undefined);
  } else if (format === "b") {
    found = truths(data, length);
  } else if (format === "u" || format === "z") {
    const ends = new Int32Array(offsets.slice(0, 4 * (length + 1)).buffer);
    const decoder = new TextDecoder();
    found = Array.from({ length }, (_, at) => data.subarray(ends[at], ends[at + 1]));
    if (format === "u") found = found.map((bytes) => decoder.decode(bytes));
  } else if (format.startsWith("w:")) {
    const width = Number(format.slice(2));
    found = Array.from({ length }, (_, at) => data.subarray(at * width, (at + 1) * width));
  } else {
    throw new TypeError(`column ${JSON.stringify(name)} has the format ${format}, which this SDK does not read`);
  }
  if (validity === undefined) return found;
  return truths(validity, length).map((valid, at) => (valid ? found[at] : null));
}

/** Values as a column of the interface. */
export function column(field, list) {
  const format = field.format();
  const Typed = arrayOf(format);
  const there = list.map((value) => value !== null && value !== undefined);
  const nullCount = there.filter((valid) => !valid).length;
  let offsets;
  let data;
  if (Typed) {
    const zero = Typed.name.startsWith("Big") ? BigInt : Number;
    const typed = Typed.from(list, (value, at) => zero(there[at] ? value : 0));
    data = new Uint8Array(typed.buffer);
  } else if (format === "b") {
    data = bits(list);
  } else if (format === "u" || format === "z") {
    const encoder = new TextEncoder();
    const parts = list.map((value, at) => {
      if (!there[at]) return new Uint8Array();
      return format === "u" ? encoder.encode(value) : value;
    });
    const ends = new Int32Array(list.length + 1);
    parts.forEach((part, at) => {
      ends[at + 1] = ends[at] + part.length;
    });
    data = new Uint8Array(ends[list.length]);
    parts.forEach((part, at) => data.set(part, ends[at]));
    offsets = new Uint8Array(ends.buffer);
  } else {
    throw new TypeError(`this SDK does not write the type ${field.type}`);
  }
  const validity = nullCount > 0 ? bits(there) : undefined;
  return { name: field.name, format, length: list.length, nullCount, validity, offsets, data };
}
