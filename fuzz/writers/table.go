// The table of table.py as arrow-go writes it.
//
//	go run table.go FOLDER         (github.com/apache/arrow-go/v18)
package main

import (
	"math"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	pair := arrow.StructOf(
		arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		arrow.Field{Name: "y", Type: arrow.BinaryTypes.String, Nullable: true},
	)
	words := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	field := func(name string, kind arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: kind, Nullable: true}
	}
	schema := arrow.NewSchema([]arrow.Field{
		field("n", arrow.PrimitiveTypes.Int64), field("flag", arrow.FixedWidthTypes.Boolean),
		field("f", arrow.PrimitiveTypes.Float64), field("s", arrow.BinaryTypes.String), field("b", arrow.BinaryTypes.Binary),
		field("ts", &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}), field("d", arrow.FixedWidthTypes.Date32),
		field("m", &arrow.Decimal128Type{Precision: 10, Scale: 2}), field("l", arrow.ListOf(arrow.PrimitiveTypes.Int32)),
		field("st", pair), field("k", words),
	}, nil)
	rows := `[
		{"n": 1, "flag": true, "f": 1.5, "s": "one", "b": "AQ==", "ts": "2026-01-31T12:00:00Z", "d": "2026-01-31", "l": [1, 2], "st": {"x": 7, "y": "a"}, "k": "red"},
		{},
		{"n": -3, "flag": false, "f": -0.0, "s": "", "b": "", "ts": "1969-12-31T23:00:00Z", "d": "1960-02-29", "l": [], "st": {"x": null, "y": null}, "k": "blue"},
		{"n": 4611686018427387904, "flag": true, "s": "größer", "b": "/wA=", "l": [null, -5], "st": {"x": -1, "y": "b"}, "k": "red"}
	]`
	without := make([]arrow.Field, 0, schema.NumFields())
	for _, one := range schema.Fields() {
		if one.Name != "m" && one.Name != "f" {
			without = append(without, one)
		}
	}
	read, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema(without, nil), strings.NewReader(rows))
	check(err)
	// JSON has no infinity, and decimals would go through it as floats.
	amounts := array.NewDecimal128Builder(memory.DefaultAllocator, &arrow.Decimal128Type{Precision: 10, Scale: 2})
	amounts.AppendValues([]decimal128.Num{decimal128.FromI64(125), {}, decimal128.FromI64(-9999), {}}, []bool{true, false, true, false})
	floats := array.NewFloat64Builder(memory.DefaultAllocator)
	floats.AppendValues([]float64{1.5, 0, math.Copysign(0, -1), math.Inf(1)}, []bool{true, false, true, true})
	columns := make([]arrow.Array, 0, schema.NumFields())
	for _, one := range schema.Fields() {
		switch one.Name {
		case "m":
			columns = append(columns, amounts.NewArray())
		case "f":
			columns = append(columns, floats.NewArray())
		default:
			columns = append(columns, read.Column(read.Schema().FieldIndices(one.Name)[0]))
		}
	}
	batch := array.NewRecord(schema, columns, 4)
	file, err := os.Create(os.Args[1] + "/arrow_go_table.arrows")
	check(err)
	writer := ipc.NewWriter(file, ipc.WithSchema(schema))
	check(writer.Write(batch))
	check(writer.Write(batch.NewSlice(1, 3)))
	check(writer.Close())
	check(file.Close())
}
