// The schema of rows: Arrow's schema message, read and written without an Arrow library. A message is a FlatBuffer; what is here of that
// format is what a schema needs.

// Arrow's types by their number, with the fields of each: name, how it is stored, default.
const TYPES = new Map([
  [2, ["int", [["bits", "i32", 0], ["signed", "u8", 0]]]],
  [3, ["float", [["precision", "i16", 0]]]],
  [4, ["binary", []]],
  [5, ["utf8", []]],
  [6, ["bool", []]],
  [7, ["decimal", [["precision", "i32", 0], ["scale", "i32", 0], ["bits", "i32", 128]]]],
  [8, ["date", [["unit", "i16", 1]]]],
  [9, ["time", [["unit", "i16", 1], ["bits", "i32", 32]]]],
  [10, ["timestamp", [["unit", "i16", 0], ["zone", "text", undefined]]]],
  [11, ["interval", [["unit", "i16", 0]]]],
  [12, ["list", []]],
  [13, ["struct", []]],
  [15, ["fixed_size_binary", [["width", "i32", 0]]]],
  [16, ["fixed_size_list", [["size", "i32", 0]]]],
  [17, ["map", [["sorted", "u8", 0]]]],
  [18, ["duration", [["unit", "i16", 1]]]],
  [19, ["large_binary", []]],
  [20, ["large_utf8", []]],
  [21, ["large_list", []]],
]);
const NUMBERS = new Map([...TYPES].map(([number, [kind]]) => [kind, number]));
const UNITS = ["s", "ms", "us", "ns"];
const LETTERS = ["s", "m", "u", "n"];

/**
 * A column: its name, and its type in words: bool, int8 to uint64, float32, float64, utf8, binary, date32, timestamp(us),
 * timestamp(us, UTC).
 */
export class Field {
  constructor(name, type) {
    [this.kind, this.facts] = parse(type);
    Object.assign(this, { name, nullable: true, children: [], metadata: [] });
  }

  /** The type in words. */
  get type() {
    const { kind, facts } = this;
    switch (kind) {
      case "int":
        return `${facts.signed ? "" : "u"}int${facts.bits}`;
      case "float":
        return ["float16", "float32", "float64"][facts.precision];
      case "date":
        return ["date32", "date64"][facts.unit];
      case "time":
      case "duration":
        return `${kind}(${UNITS[facts.unit]})`;
      case "timestamp":
        return `timestamp(${UNITS[facts.unit]}${facts.zone ? `, ${facts.zone}` : ""})`;
      case "decimal":
        return `decimal(${facts.precision}, ${facts.scale})`;
      default:
        return kind;
    }
  }

  /** The type in the notation of Arrow's C data interface. */
  format() {
    const { kind, facts } = this;
    switch (kind) {
      case "int": {
        const letter = { 8: "c", 16: "s", 32: "i", 64: "l" }[facts.bits];
        return facts.signed ? letter : letter.toUpperCase();
      }
      case "float":
        return ["e", "f", "g"][facts.precision];
      case "date":
        return ["tdD", "tdm"][facts.unit];
      case "time":
        return `tt${LETTERS[facts.unit]}`;
      case "duration":
        return `tD${LETTERS[facts.unit]}`;
      case "timestamp":
        return `ts${LETTERS[facts.unit]}:${facts.zone ?? ""}`;
      default:
        return { bool: "b", utf8: "u", binary: "z" }[kind] ?? kind;
    }
  }
}

/** Kind and facts of a type in words. */
function parse(words) {
  if (["bool", "utf8", "binary"].includes(words)) return [words, {}];
  let match = /^(u?)int(8|16|32|64)$/.exec(words);
  if (match) return ["int", { bits: Number(match[2]), signed: match[1] ? 0 : 1 }];
  match = /^float(32|64)$/.exec(words);
  if (match) return ["float", { precision: match[1] === "32" ? 1 : 2 }];
  if (words === "date32") return ["date", { unit: 0 }];
  match = /^timestamp\((s|ms|us|ns)(?:, ?(.+))?\)$/.exec(words);
  if (match) return ["timestamp", { unit: UNITS.indexOf(match[1]), zone: match[2] }];
  throw new TypeError(`${JSON.stringify(words)} is no type that this SDK writes`);
}

/** The columns of rows. */
export class Schema {
  constructor(fields, refuse = TypeError) {
    this.fields = fields;
    this.refuse = refuse;
  }

  /** The number of a column. */
  position(name) {
    const at = this.fields.findIndex((field) => field.name === name);
    if (at >= 0) return at;
    const names = this.fields.map((field) => field.name).join(", ");
    throw new this.refuse(`the rows have no column ${JSON.stringify(name)}; they have: ${names}`);
  }

  /** The field of a column that has to be there, of one of some types where they are named. */
  require(name, ...types) {
    const field = this.fields[this.position(name)];
    if (types.length === 0 || types.includes(field.type)) return field;
    throw new this.refuse(`column ${JSON.stringify(name)} is of type ${field.type}; expected ${types.join(" or ")}`);
  }

  /** The same with fields added, or put in the place of those of the same name. */
  extended(fields) {
    const own = new Map(fields.map((field) => [field.name, field]));
    const kept = this.fields.map((field) => own.get(field.name) ?? field);
    const names = new Set(kept.map((field) => field.name));
    return new Schema([...kept, ...fields.filter((field) => !names.has(field.name))]);
  }

  /** From an Arrow IPC stream that begins with a schema. */
  static read(stream, refuse) {
    const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
    const begin = view.getInt32(0, true) === -1 ? 8 : 4;
    const message = new Table(view, begin + view.getUint32(begin, true));
    return new Schema(message.table(2).tables(1).map(readField), refuse);
  }

  /** As an Arrow IPC stream of nothing but the schema. */
  write() {
    const schema = { table: [[0, "i16", 0], [1, "offset", { vector: this.fields.map(writeField) }]] };
    const message = new Builder().finish([[0, "i16", 4], [1, "u8", 1], [2, "offset", schema], [3, "i64", 0n]]);
    const padded = message.length + (-message.length & 7);
    const stream = new Uint8Array(8 + padded + 8);
    const view = new DataView(stream.buffer);
    view.setInt32(0, -1, true);
    view.setInt32(4, padded, true);
    stream.set(message, 8);
    view.setInt32(8 + padded, -1, true);
    return stream;
  }
}

const READ = { u8: "getUint8", i16: "getInt16", i32: "getInt32" };
const WRITE = { u8: "setUint8", i16: "setInt16", i32: "setInt32", i64: "setBigInt64" };

/** A table of a FlatBuffer. */
class Table {
  constructor(view, at) {
    Object.assign(this, { view, at, entries: at - view.getInt32(at, true) });
  }

  /** Where a field is; undefined where it is not. */
  place(number) {
    const entry = 4 + 2 * number;
    if (entry + 2 > this.view.getUint16(this.entries, true)) return undefined;
    const offset = this.view.getUint16(this.entries + entry, true);
    return offset ? this.at + offset : undefined;
  }

  scalar(number, kind, otherwise) {
    const place = this.place(number);
    return place === undefined ? otherwise : this.view[READ[kind]](place, true);
  }

  target(number) {
    const place = this.place(number);
    return place === undefined ? undefined : place + this.view.getUint32(place, true);
  }

  table(number) {
    const target = this.target(number);
    return target === undefined ? undefined : new Table(this.view, target);
  }

  text(number) {
    const target = this.target(number);
    if (target === undefined) return undefined;
    const begin = this.view.byteOffset + target + 4;
    return new TextDecoder().decode(new Uint8Array(this.view.buffer, begin, this.view.getUint32(target, true)).slice());
  }

  tables(number) {
    const target = this.target(number);
    if (target === undefined) return [];
    return Array.from({ length: this.view.getUint32(target, true) }, (_, at) => {
      const place = target + 4 + 4 * at;
      return new Table(this.view, place + this.view.getUint32(place, true));
    });
  }
}

/** A field with its children and its metadata. */
function readField(table) {
  const known = TYPES.get(table.scalar(2, "u8", 0));
  if (!known) throw new TypeError(`column ${JSON.stringify(table.text(0))} has a type that this SDK does not know`);
  const [kind, facts] = known;
  const own = table.table(3);
  const fact = ([name, stored, otherwise], at) => [name, stored === "text" ? own.text(at) : own.scalar(at, stored, otherwise)];
  return Object.assign(Object.create(Field.prototype), {
    name: table.text(0) ?? "",
    nullable: table.scalar(1, "u8", 0) !== 0,
    kind,
    facts: Object.fromEntries(facts.map(fact)),
    children: table.tables(5).map(readField),
    metadata: table.tables(6).map((pair) => [pair.text(0) ?? "", pair.text(1) ?? ""]),
  });
}

/** A field as a table for the builder. */
function writeField(field) {
  const facts = TYPES.get(NUMBERS.get(field.kind))[1]
    .map(([name, stored], at) => [at, stored === "text" ? "offset" : stored, field.facts[name]])
    .filter(([, , value]) => value !== undefined)
    .map(([at, stored, value]) => [at, stored, stored === "offset" ? { text: value } : value]);
  const parts = [
    [0, "offset", { text: field.name }],
    [1, "u8", field.nullable ? 1 : 0],
    [2, "u8", NUMBERS.get(field.kind)],
    [3, "offset", { table: facts }],
    [5, "offset", { vector: field.children.map(writeField) }],
  ];
  if (field.metadata.length > 0) {
    const pair = ([key, value]) => ({ table: [[0, "offset", { text: key }], [1, "offset", { text: value }]] });
    parts.push([6, "offset", { vector: field.metadata.map(pair) }]);
  }
  return { table: parts };
}

/** Writes a FlatBuffer from its front: what a table points to comes behind it, as offsets have to point forwards. */
class Builder {
  constructor() {
    this.view = new DataView(new ArrayBuffer(1024));
    this.length = 0;
  }

  finish(parts) {
    this.grow(8);
    // What is put may move the bytes.
    const root = this.put({ table: parts });
    this.view.setUint32(0, root, true);
    return new Uint8Array(this.view.buffer, 0, this.length);
  }

  /** So many bytes more, all zero; gives where they begin. */
  grow(bytes, align = 1) {
    const at = this.length + ((align - (this.length % align)) % align);
    this.length = at + bytes;
    if (this.length > this.view.byteLength) {
      const larger = new Uint8Array(2 * this.length);
      larger.set(new Uint8Array(this.view.buffer));
      this.view = new DataView(larger.buffer);
    }
    return at;
  }

  put({ table, vector, text }) {
    if (table) return this.table(table);
    return vector ? this.vector(vector) : this.text(text);
  }

  text(text) {
    const bytes = new TextEncoder().encode(text);
    const at = this.grow(4 + bytes.length + 1, 4);
    this.view.setUint32(at, bytes.length, true);
    new Uint8Array(this.view.buffer).set(bytes, at + 4);
    return at;
  }

  vector(items) {
    const at = this.grow(4 + 4 * items.length, 4);
    this.view.setUint32(at, items.length, true);
    items.forEach((item, number) => {
      const place = at + 4 + 4 * number;
      const target = this.put(item);
      this.view.setUint32(place, target - place, true);
    });
    return at;
  }

  table(parts) {
    const slots = Math.max(-1, ...parts.map(([number]) => number)) + 1;
    const size = 4 + 2 * slots;
    // All values begin at multiples of 8 from the table's begin, which makes any of them aligned.
    const entries = this.grow(size, 8);
    const whole = 8 + 8 * parts.length;
    const at = this.grow(whole, 8);
    this.view.setUint16(entries, size, true);
    this.view.setUint16(entries + 2, whole, true);
    this.view.setInt32(at, at - entries, true);
    parts.forEach(([number, stored, value], order) => {
      const place = at + 8 + 8 * order;
      this.view.setUint16(entries + 4 + 2 * number, place - at, true);
      if (stored === "offset") {
        const target = this.put(value);
        this.view.setUint32(place, target - place, true);
      } else {
        this.view[WRITE[stored]](place, value, true);
      }
    });
    return at;
  }
}
