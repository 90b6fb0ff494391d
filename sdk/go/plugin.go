// Package fsdatasink is for writing fs-data-sink plugins in Go: one type, columns as values. No WIT and no Arrow in sight.
//
//	type plugin struct{ column string }
//
//	func init() { fsdatasink.Register(fsdatasink.About{Name: "drop-nulls"}, &plugin{}) }
//	func main() {}
//
//	func (p *plugin) Open(config []byte, schema *fsdatasink.Schema) ([]fsdatasink.Field, error) {
//		var wanted struct{ Column string }
//		if err := fsdatasink.Config(config, &wanted); err != nil {
//			return nil, err
//		}
//		p.column = wanted.Column
//		return nil, schema.Require(p.column)
//	}
//
//	func (p *plugin) Process(batch *fsdatasink.Batch, output *fsdatasink.Output) error {
//		column, err := batch.Column(p.column)
//		for row := 0; err == nil && row < batch.Rows; row++ {
//			output.Keep(row, !column.IsNull(row))
//		}
//		return err
//	}
//
// The host makes an instance for each lane of a pipeline; an instance sees one batch at a time, in the order of its lane. There are no
// files, no network and no environment; what is printed, and Log, is in the host's log. A panic ends the instance, and the batch is refused
// with its words.
package fsdatasink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// About says what a plugin is.
type About struct {
	Name, Description string
	// Version is 0.1.0 where nothing is said.
	Version string
	// Roles are of "decode", "filter", "enrich"; a hint for people.
	Roles []string
	// ConfigSchema is the JSON Schema of the config.
	ConfigSchema string
	// Deterministic: same input and config, same output; then clocks stand at 1970, and random numbers are the same.
	Deterministic bool
	// BuffersRows: rows are kept from batch to batch. Flush gives them out, and Open has said Replace.
	BuffersRows bool
}

// Plugin is what a plugin does.
type Plugin interface {
	// Open comes once, before any row: refuse here what cannot work. It is given what stands under `config:` in the pipeline, as JSON,
	// and answers the columns that come out besides those that came in; one of the same name takes the place of that. After
	// schema.Replace nothing else comes out.
	Open(config []byte, schema *Schema) ([]Field, error)
	// Process comes for each batch of rows.
	Process(batch *Batch, output *Output) error
}

// Flusher is a plugin that holds rows back: it gives them out before a commit, and at the end.
type Flusher interface {
	Flush(reason FlushReason, output *Output) error
}

// Closer is a plugin that wants to know of the end, if it comes to that.
type Closer interface{ Close() }

// Stateful is a plugin whose state is recorded with the offsets. Its package main imports fsdatasink/state.
type Stateful interface {
	Snapshot() ([]byte, error)
	Restore(snapshot []byte) error
}

// FlushReason says why rows have to come out.
type FlushReason uint32

// The reasons.
const (
	Checkpoint FlushReason = iota
	Timer
	EndOfInput
)

var (
	about  About
	plugin Plugin
	input  *Schema
	added  []Field
)

// Register names the plugin; in a function init of package main.
func Register(what About, one Plugin) {
	about, plugin = what, one
	if about.Version == "" {
		about.Version = "0.1.0"
	}
}

// Registered is the plugin, for the package state.
func Registered() Plugin { return plugin }

// The cases of the interface's error.
const (
	invalidConfig byte = iota
	unsupportedSchema
	retryable
	failed
)

// Fault is an error that says more than that the batch failed.
type Fault struct {
	kind  byte
	words string
	pause time.Duration
}

func (f *Fault) Error() string { return f.words }

// InvalidConfig says that the configuration is wrong: the pipeline does not start. Name the key.
func InvalidConfig(format string, arguments ...any) error {
	return &Fault{kind: invalidConfig, words: fmt.Sprintf(format, arguments...)}
}

// UnsupportedSchema says that the rows cannot be served: the pipeline does not start. Name the column.
func UnsupportedSchema(format string, arguments ...any) error {
	return &Fault{kind: unsupportedSchema, words: fmt.Sprintf(format, arguments...)}
}

// Retry says not now: the host brings the same batch again, after the pause at least.
func Retry(pause time.Duration, format string, arguments ...any) error {
	return &Fault{kind: retryable, words: fmt.Sprintf(format, arguments...), pause: pause}
}

// Config reads the configuration into a struct; a key that the struct lacks is an error.
func Config(config []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return InvalidConfig("%v", err)
	}
	return nil
}
