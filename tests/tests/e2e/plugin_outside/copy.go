// Adds a copy of each column whose type this SDK reads and writes, value by value.
package main

import (
	"strings"

	"fsdatasink"
)

type plugin struct{}

func init() { fsdatasink.Register(fsdatasink.About{Name: "copy"}, plugin{}) }

func main() {}

// Whether only passing through is possible.
func passes(kind string) bool {
	for _, other := range []string{"list", "struct", "map", "large", "fixed", "interval", "decimal(50"} {
		if strings.HasPrefix(kind, other) {
			return true
		}
	}
	return false
}

func (plugin) Open(config []byte, schema *fsdatasink.Schema) ([]fsdatasink.Field, error) {
	var added []fsdatasink.Field
	for _, field := range schema.Fields {
		if !passes(field.Type) {
			added = append(added, fsdatasink.Field{Name: "copy " + field.Name, Type: field.Type})
		}
	}
	return added, nil
}

func (plugin) Process(batch *fsdatasink.Batch, output *fsdatasink.Output) error {
	for _, field := range batch.Schema.Fields {
		if passes(field.Type) {
			continue
		}
		column, err := batch.Column(field.Name)
		if err != nil {
			return err
		}
		to := output.Values("copy " + field.Name)
		for row := range batch.Rows {
			switch {
			case column.IsNull(row):
				to.PutNull()
			case field.Type == "bool":
				to.PutBool(column.Bool(row))
			case strings.HasPrefix(field.Type, "float"):
				to.PutFloat(column.Float(row))
			case field.Type == "utf8" || field.Type == "binary":
				to.PutBytes(column.Bytes(row))
			default:
				to.PutInt(column.Int(row))
			}
		}
	}
	return nil
}
