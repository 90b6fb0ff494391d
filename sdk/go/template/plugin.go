// Adds `is_large` to each row, leaves out rows without an amount, and refuses negative amounts.
package main

import (
	_ "embed"

	"fsdatasink"
)

//go:embed config-schema.json
var configSchema string

// What stands under `config:` in the pipeline's YAML, and what is kept from batch to batch.
type plugin struct {
	Column  string  `json:"column"`
	Minimum float64 `json:"minimum"`
}

func init() {
	fsdatasink.Register(fsdatasink.About{
		Name:          "{{name}}",
		Version:       "0.1.0",
		Description:   "says which amounts are large",
		Roles:         []string{"filter", "enrich"},
		ConfigSchema:  configSchema,
		Deterministic: true,
	}, &plugin{})
}

// The host calls the plugin; there is nothing to run.
func main() {}

// Open comes once, before any row: refuse here what cannot work. Answers the columns that are added.
func (p *plugin) Open(config []byte, schema *fsdatasink.Schema) ([]fsdatasink.Field, error) {
	if err := fsdatasink.Config(config, p); err != nil {
		return nil, err
	}
	isLarge := fsdatasink.Field{Name: "is_large", Type: "bool"}
	return []fsdatasink.Field{isLarge}, schema.Require(p.Column, "int64", "float64")
}

// Process comes for each batch of rows. Only the columns that are asked for are copied into the plugin.
func (p *plugin) Process(batch *fsdatasink.Batch, output *fsdatasink.Output) error {
	amounts, err := batch.Column(p.Column)
	if err != nil {
		return err
	}
	isLarge := output.Values("is_large")
	for row := range batch.Rows {
		if amounts.IsNull(row) {
			output.Keep(row, false)
			isLarge.PutNull()
			continue
		}
		amount := amounts.Float(row)
		isLarge.PutBool(amount >= p.Minimum)
		if amount < 0 {
			output.Reject(row, "negative", p.Column+" is below 0")
		}
	}
	return nil
}
