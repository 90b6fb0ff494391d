package fsdatasink

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Batch is rows that the host holds; only the columns that are asked for are copied.
type Batch struct {
	Rows   int
	Schema *Schema
	read   func(position int) (*Column, error)
}

// Column reads a column by its name. It lives as long as the call.
func (b *Batch) Column(name string) (*Column, error) {
	at := b.Schema.Position(name)
	if at < 0 {
		return nil, fmt.Errorf("%s", b.Schema.lacks(name))
	}
	column, err := b.read(at)
	if err != nil {
		return nil, fmt.Errorf("column %q is of type %s: %w", name, b.Schema.Fields[at].Type, err)
	}
	return column, nil
}

// Column is a column as Arrow has it: little-endian values in Data; for utf8 and binary rows + 1 numbers of 4 bytes in Offsets; a bit for
// each row in Validity, or nil where all have a value. Format is the type in the notation of Arrow's C data interface.
type Column struct {
	Name, Format            string
	Rows                    int
	Validity, Offsets, Data []byte
	nulls, width            int
	kind                    byte
}

// What a format is: b truth, i whole number, u the same without sign, f number, t text, w bytes of one width, d decimal; 0 where it is
// none that is read here. And the bytes of a value.
func kindOf(format string) (byte, int) {
	switch format {
	case "b":
		return 'b', 0
	case "c":
		return 'i', 1
	case "C":
		return 'u', 1
	case "s":
		return 'i', 2
	case "S":
		return 'u', 2
	case "i", "tdD", "tts", "ttm", "tiM":
		return 'i', 4
	case "I":
		return 'u', 4
	case "l", "tdm", "ttu", "ttn", "tDs", "tDm", "tDu", "tDn":
		return 'i', 8
	case "L":
		return 'u', 8
	case "f":
		return 'f', 4
	case "g":
		return 'f', 8
	case "u", "z":
		return 't', 0
	}
	if strings.HasPrefix(format, "ts") {
		return 'i', 8
	}
	if width, is := strings.CutPrefix(format, "w:"); is {
		parsed, _ := strconv.Atoi(width)
		return 'w', parsed
	}
	if parts, is := strings.CutPrefix(format, "d:"); is {
		bits := 128
		if numbers := strings.Split(parts, ","); len(numbers) > 2 {
			bits, _ = strconv.Atoi(numbers[2])
		}
		return 'd', bits / 8
	}
	return 0, 0
}

// Holds the buffers against the number of rows, before anything is read of them.
func (c *Column) check() error {
	c.kind, c.width = kindOf(c.Format)
	bits := (c.Rows + 7) / 8
	fits := c.Validity == nil || len(c.Validity) >= bits
	switch c.kind {
	case 0:
		return fmt.Errorf("this SDK does not read the format %s", c.Format)
	case 'b':
		fits = fits && len(c.Data) >= bits
	case 't':
		fits = fits && len(c.Offsets) >= 4*(c.Rows+1)
		for row := 0; fits && row <= c.Rows; row++ {
			fits = c.end(row) <= len(c.Data) && (row == 0 && c.end(0) >= 0 || row > 0 && c.end(row-1) <= c.end(row))
		}
	default:
		fits = fits && len(c.Data) >= c.Rows*c.width
	}
	if !fits {
		return fmt.Errorf("the host sent buffers that do not fit %d rows", c.Rows)
	}
	return nil
}

func (c *Column) end(row int) int { return int(int32(binary.LittleEndian.Uint32(c.Offsets[4*row:]))) }

// Where a value is. What is asked for behind the last row, or as another type, is a fault of the plugin.
func (c *Column) value(row int, kinds string) []byte {
	if row < 0 || row >= c.Rows {
		panic(fmt.Sprintf("column %q has %d rows, and row %d was read", c.Name, c.Rows, row))
	}
	if strings.IndexByte(kinds, c.kind) < 0 {
		panic(fmt.Sprintf("column %q has the format %s, and is read as something else", c.Name, c.Format))
	}
	return c.Data[row*c.width:]
}

// IsNull: there is no value in a row.
func (c *Column) IsNull(row int) bool {
	if row < 0 || row >= c.Rows {
		panic(fmt.Sprintf("column %q has %d rows, and row %d was read", c.Name, c.Rows, row))
	}
	return c.Validity != nil && c.Validity[row/8]>>(row%8)&1 == 0
}

// Bool is a value of a bool column.
func (c *Column) Bool(row int) bool {
	c.value(row, "b")
	return c.Data[row/8]>>(row%8)&1 != 0
}

// Int is a whole number; also of dates, times and timestamps in the unit of their type, and of decimals up to 18 digits without the point.
func (c *Column) Int(row int) int64 {
	at := c.value(row, "iud")
	switch {
	case c.width == 1 && c.kind == 'u':
		return int64(at[0])
	case c.width == 1:
		return int64(int8(at[0]))
	case c.width == 2 && c.kind == 'u':
		return int64(binary.LittleEndian.Uint16(at))
	case c.width == 2:
		return int64(int16(binary.LittleEndian.Uint16(at)))
	case c.width == 4 && c.kind == 'u':
		return int64(binary.LittleEndian.Uint32(at))
	case c.width == 4:
		return int64(int32(binary.LittleEndian.Uint32(at)))
	}
	return int64(binary.LittleEndian.Uint64(at))
}

// Float is a number of any type.
func (c *Column) Float(row int) float64 {
	at := c.value(row, "iuf")
	switch {
	case c.kind == 'f' && c.width == 4:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
	case c.kind == 'f':
		return math.Float64frombits(binary.LittleEndian.Uint64(at))
	case c.kind == 'u':
		return float64(uint64(c.Int(row)))
	}
	return float64(c.Int(row))
}

// Bytes is a value of utf8, binary and fixed-size binary; it lives as long as the call.
func (c *Column) Bytes(row int) []byte {
	at := c.value(row, "tw")
	if c.kind == 'w' {
		return at[:c.width]
	}
	return c.Data[c.end(row):c.end(row+1)]
}

// Text is a copy of that.
func (c *Column) Text(row int) string { return string(c.Bytes(row)) }
