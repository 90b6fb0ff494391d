package fsdatasink

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Output is what becomes of the rows of a batch. Untouched, all live on as they are.
type Output struct {
	rows       int
	dropped    []byte // for each row: 1 not kept, 2 refused
	rejections []*rejection
	columns    []*Values
}

type rejection struct {
	code, message string
	rows          []uint32
}

func newOutput(rows int, added []Field) *Output {
	output := &Output{rows: rows, dropped: make([]byte, rows)}
	for _, field := range added {
		// Open has parsed it once.
		_, format, _ := field.parsed()
		values := &Values{name: field.Name, format: format}
		values.kind, values.width = kindOf(format)
		output.columns = append(output.columns, values)
	}
	return output
}

// Keep says whether a row lives on; one that does not is left out and counted as filtered.
func (o *Output) Keep(row int, keep bool) {
	o.dropped[row] &^= 1
	if !keep {
		o.dropped[row] |= 1
	}
}

// Reject refuses a row: it becomes a dead letter. The code is of a-z, 0-9, -, _ and .
func (o *Output) Reject(row int, code, message string) {
	if o.dropped[row]&2 != 0 {
		return
	}
	o.dropped[row] |= 2
	for _, known := range o.rejections {
		if known.code == code && known.message == message {
			known.rows = append(known.rows, uint32(row))
			return
		}
	}
	o.rejections = append(o.rejections, &rejection{code, message, []uint32{uint32(row)}})
}

// Values are those of a column that Open answered: put one for each row of the batch, in their order; after Replace, one for each row that
// comes out.
func (o *Output) Values(name string) *Values {
	for _, values := range o.columns {
		if values.name == name {
			return values
		}
	}
	panic(fmt.Sprintf("Open answered no column %q", name))
}

// A bit for each row that was kept, and their number. Refused ones count as not kept anyway.
func (o *Output) kept() ([]byte, int) {
	bits, kept := make([]byte, (o.rows+7)/8), 0
	for row, dropped := range o.dropped {
		if dropped&1 == 0 {
			bits[row/8] |= 1 << (row % 8)
			kept++
		}
	}
	return bits, kept
}

// Values of one column.
type Values struct {
	name, format string
	kind         byte
	width, count int
	data, valid  []byte // truths and validity have a byte for each value here
	ends         []int
}

// Room for one value more.
func (v *Values) next(kinds string, isThere byte) []byte {
	is := kinds == ""
	for at := range len(kinds) {
		is = is || kinds[at] == v.kind
	}
	if !is {
		panic(fmt.Sprintf("column %q has the format %s, and something else was put into it", v.name, v.format))
	}
	width := v.width
	if v.kind == 'b' {
		width = 1
	}
	from := len(v.data)
	for range width {
		v.data = append(v.data, 0)
	}
	v.valid = append(v.valid, isThere)
	v.count++
	return v.data[from:]
}

// PutNull puts no value.
func (v *Values) PutNull() {
	v.next("", 0)
	v.ends = append(v.ends, len(v.data))
}

// PutBool puts a truth.
func (v *Values) PutBool(value bool) {
	if at := v.next("b", 1); value {
		at[0] = 1
	}
}

// PutInt puts a whole number, as Column.Int gives it.
func (v *Values) PutInt(value int64) {
	if v.kind == 'f' {
		v.PutFloat(float64(value))
		return
	}
	at := v.next("iud", 1)
	if bits := 8 * v.width; bits < 64 {
		low, high := -(int64(1) << (bits - 1)), int64(1)<<(bits-1)
		if v.kind == 'u' {
			low, high = 0, int64(1)<<bits
		}
		if value < low || value >= high {
			panic(fmt.Sprintf("%d does not fit the format %s of column %q", value, v.format, v.name))
		}
	}
	whole := binary.LittleEndian.AppendUint64(nil, uint64(value))
	for byteAt := range at {
		if byteAt < 8 {
			at[byteAt] = whole[byteAt]
		} else if value < 0 {
			at[byteAt] = 0xff
		}
	}
}

// PutFloat puts a number.
func (v *Values) PutFloat(value float64) {
	at := v.next("f", 1)
	if v.width == 4 {
		binary.LittleEndian.PutUint32(at, math.Float32bits(float32(value)))
	} else {
		binary.LittleEndian.PutUint64(at, math.Float64bits(value))
	}
}

// PutBytes puts a text or bytes.
func (v *Values) PutBytes(value []byte) {
	v.next("t", 1)
	v.data = append(v.data, value...)
	if len(v.data) > math.MaxInt32 {
		panic(fmt.Sprintf("column %q has more than 2 GiB of text", v.name))
	}
	v.ends = append(v.ends, len(v.data))
}

// PutText puts a text.
func (v *Values) PutText(value string) { v.PutBytes([]byte(value)) }

func (v *Values) miscounted(rows int) string {
	return fmt.Sprintf("column %q has %d values for %d rows", v.name, v.count, rows)
}

// The values as a column, of the rows that live on; of all where they are rows of their own.
func (v *Values) packed(dropped []byte, all bool) *Column {
	column := &Column{Name: v.name, Format: v.format}
	var validity []byte
	if v.kind == 't' {
		column.Offsets = make([]byte, 4)
	}
	for row := range v.count {
		if !all && dropped[row] != 0 {
			continue
		}
		at, bit := column.Rows/8, byte(1)<<(column.Rows%8)
		if column.Rows%8 == 0 {
			validity = append(validity, 0)
			if v.kind == 'b' {
				column.Data = append(column.Data, 0)
			}
		}
		switch {
		case v.kind == 'b':
			if v.data[row] != 0 {
				column.Data[at] |= bit
			}
		case v.kind == 't':
			begin := 0
			if row > 0 {
				begin = v.ends[row-1]
			}
			column.Data = append(column.Data, v.data[begin:v.ends[row]]...)
			column.Offsets = binary.LittleEndian.AppendUint32(column.Offsets, uint32(len(column.Data)))
		default:
			column.Data = append(column.Data, v.data[row*v.width:(row+1)*v.width]...)
		}
		if v.valid[row] != 0 {
			validity[at] |= bit
		} else {
			column.nulls++
		}
		column.Rows++
	}
	if column.nulls > 0 {
		column.Validity = validity
	}
	return column
}
