package fsdatasink

import (
	"bytes"
	"encoding/binary"
)

// Arrow's schema message, read and written without an Arrow library. A message is a FlatBuffer; what is here of that format is what a
// schema needs. Nothing is read behind the message, and nothing deeper than depthMax: the host sends 8 levels and 10,000 fields at most.
const (
	depthMax  = 16
	fieldsMax = 20000
)

// table is a table of a FlatBuffer.
type table struct {
	data     []byte
	at, from uint32
	size     uint32
}

// An unsigned number of some bytes; 0 where it would lie behind the end.
func (t table) number(at, size uint32) uint32 {
	if uint64(at)+uint64(size) > uint64(len(t.data)) {
		return 0
	}
	var whole [4]byte
	copy(whole[:], t.data[at:at+size])
	return binary.LittleEndian.Uint32(whole[:])
}

func (t table) tableAt(at uint32) table {
	found := table{data: t.data, at: at}
	found.from = at - found.number(at, 4)
	found.size = found.number(found.from, 2)
	return found
}

// Where a field is; 0 where it is not, since nothing is there.
func (t table) place(field uint32) uint32 {
	if entry := 4 + 2*field; entry+2 <= t.size {
		if offset := t.number(t.from+entry, 2); offset != 0 {
			return t.at + offset
		}
	}
	return 0
}

func (t table) scalar(field, size uint32, otherwise int32) int32 {
	at := t.place(field)
	if at == 0 {
		return otherwise
	}
	if size == 2 {
		return int32(int16(t.number(at, 2)))
	}
	return int32(t.number(at, size))
}

// What a field points to.
func (t table) target(field uint32) uint32 {
	if at := t.place(field); at != 0 {
		return at + t.number(at, 4)
	}
	return 0
}

func (t table) text(field uint32) string {
	at := t.target(field)
	length := uint64(t.number(at, 4))
	if at == 0 || uint64(at)+4+length > uint64(len(t.data)) {
		return ""
	}
	return string(t.data[at+4 : uint64(at)+4+length])
}

func (t table) tables(field uint32) []table {
	at := t.target(field)
	count := t.number(at, 4)
	if at == 0 || count > fieldsMax || uint64(count) > uint64(len(t.data)/4) {
		return nil
	}
	found := make([]table, count)
	for item := range count {
		place := at + 4 + 4*item
		found[item] = t.tableAt(place + t.number(place, 4))
	}
	return found
}

func readSchema(stream []byte) (*Schema, error) {
	begin := 4
	if bytes.HasPrefix(stream, []byte{0xff, 0xff, 0xff, 0xff}) {
		begin = 8
	}
	if len(stream) < begin+8 {
		return nil, UnsupportedSchema("the host sent a schema of %d bytes", len(stream))
	}
	whole := table{data: stream[begin:]}
	message := whole.tableAt(whole.number(0, 4))
	schema := &Schema{}
	for _, field := range message.tableAt(message.target(2)).tables(1) {
		read, err := readField(field, 0)
		if err != nil {
			return nil, err
		}
		schema.Fields = append(schema.Fields, read)
	}
	return schema, nil
}

func readField(in table, depth int) (Field, error) {
	read := &node{nullable: in.scalar(1, 1, 0) != 0, kind: byte(in.scalar(2, 1, 0))}
	name := in.text(0)
	known, is := types[read.kind]
	if !is || depth > depthMax {
		return Field{}, UnsupportedSchema("column %q has a type that this SDK does not know (number %d)", name, read.kind)
	}
	own := table{data: in.data}
	if at := in.target(3); at != 0 {
		own = in.tableAt(at)
	}
	for at, fact := range known.facts {
		read.facts[at] = own.scalar(uint32(at), uint32(fact.bytes), fact.otherwise)
	}
	if read.kind == kindTimestamp {
		read.zone = own.text(1)
	}
	for _, child := range in.tables(5) {
		field, err := readField(child, depth+1)
		if err != nil {
			return Field{}, err
		}
		read.children = append(read.children, field)
	}
	for _, pair := range in.tables(6) {
		read.metadata = append(read.metadata, [2]string{pair.text(0), pair.text(1)})
	}
	return Field{Name: name, Type: read.words(), node: read}, nil
}

// As an Arrow IPC stream of nothing but the schema.
func (s *Schema) write() ([]byte, error) {
	var to builder
	root := to.reserve(8)
	message := to.table(root, 4)
	to.put(to.slot(message, 0), 4, 2)
	to.put(to.slot(message, 1), 1, 1)
	to.slot(message, 3)
	schema := to.table(to.slot(message, 2), 2)
	to.put(to.slot(schema, 0), 0, 2)
	if err := to.fields(to.slot(schema, 1), s.Fields); err != nil {
		return nil, err
	}
	to.reserve(0)
	stream := binary.LittleEndian.AppendUint32([]byte{0xff, 0xff, 0xff, 0xff}, uint32(len(to.data)))
	return append(append(stream, to.data...), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0), nil
}

// builder writes a FlatBuffer from its front: what a table points to comes behind it, as offsets have to point forwards. All begins at
// multiples of 8, which makes any value aligned.
type builder struct{ data []byte }

func (b *builder) reserve(size int) uint32 {
	b.data = append(b.data, make([]byte, -len(b.data)&7)...)
	at := len(b.data)
	b.data = append(b.data, make([]byte, size)...)
	return uint32(at)
}

func (b *builder) put(at, value uint32, size int) {
	whole := binary.LittleEndian.AppendUint32(nil, value)
	copy(b.data[at:], whole[:size])
}

// A table that something points to, with room of 8 bytes for each of its fields.
func (b *builder) table(from uint32, slots int) uint32 {
	entries := b.reserve(4 + 2*slots)
	at := b.reserve(8 + 8*slots)
	b.put(entries, uint32(4+2*slots), 2)
	b.put(entries+2, uint32(8+8*slots), 2)
	b.put(at, at-entries, 4)
	b.put(from, at-from, 4)
	return at
}

// The place of a field of a table, which is there from now on.
func (b *builder) slot(at uint32, field uint32) uint32 {
	entries := at - binary.LittleEndian.Uint32(b.data[at:])
	b.put(entries+4+2*field, 8+8*field, 2)
	return at + 8 + 8*field
}

func (b *builder) text(from uint32, value string) {
	at := b.reserve(4 + len(value) + 1)
	b.put(at, uint32(len(value)), 4)
	copy(b.data[at+4:], value)
	b.put(from, at-from, 4)
}

func (b *builder) list(from uint32, count int) uint32 {
	at := b.reserve(4 + 4*count)
	b.put(at, uint32(count), 4)
	b.put(from, at-from, 4)
	return at + 4
}

func (b *builder) fields(from uint32, fields []Field) error {
	list := b.list(from, len(fields))
	for item, field := range fields {
		node := field.node
		if node == nil {
			var err error
			if node, _, err = field.parsed(); err != nil {
				return err
			}
		}
		at := b.table(list+4*uint32(item), 7)
		b.text(b.slot(at, 0), field.Name)
		if node.nullable {
			b.put(b.slot(at, 1), 1, 1)
		}
		b.put(b.slot(at, 2), uint32(node.kind), 1)
		own := b.table(b.slot(at, 3), 3)
		for number, fact := range types[node.kind].facts {
			b.put(b.slot(own, uint32(number)), uint32(node.facts[number]), fact.bytes)
		}
		if node.zone != "" {
			b.text(b.slot(own, 1), node.zone)
		}
		if err := b.fields(b.slot(at, 5), node.children); err != nil {
			return err
		}
		if len(node.metadata) > 0 {
			pairs := b.list(b.slot(at, 6), len(node.metadata))
			for number, pair := range node.metadata {
				both := b.table(pairs+4*uint32(number), 2)
				b.text(b.slot(both, 0), pair[0])
				b.text(b.slot(both, 1), pair[1])
			}
		}
	}
	return nil
}
