// Numbers the rows of its source over restarts, and gives them names out of a bucket and a greeting of a server; it holds them until a flush.
package main

import (
	"strconv"

	"fsdatasink"
	"fsdatasink/http"
	"fsdatasink/keyvalue"
	_ "fsdatasink/state"
)

type row struct {
	country, greeting string
	name              []byte
	seen              int64
}

type plugin struct {
	URL   string `json:"url"`
	Fail  bool   `json:"fail"`
	names *keyvalue.Bucket
	seen  int64
	held  []row
}

func init() {
	fsdatasink.Register(fsdatasink.About{Name: "numbers", BuffersRows: true}, &plugin{})
}

func main() {}

func (p *plugin) Open(config []byte, schema *fsdatasink.Schema) ([]fsdatasink.Field, error) {
	if err := fsdatasink.Config(config, p); err != nil {
		return nil, err
	}
	if err := schema.Require("country", "utf8"); err != nil {
		return nil, err
	}
	schema.Replace()
	var err error
	p.names, err = keyvalue.Open("names")
	return []fsdatasink.Field{
		{Name: "country", Type: "utf8"}, {Name: "seen", Type: "int64"}, {Name: "name", Type: "utf8"}, {Name: "greeting", Type: "utf8"},
	}, err
}

func (p *plugin) Process(batch *fsdatasink.Batch, output *fsdatasink.Output) error {
	column := "country"
	if p.Fail {
		column = "colour"
	}
	countries, err := batch.Column(column)
	if err != nil {
		return err
	}
	region, _ := fsdatasink.Granted("region")
	_, more := fsdatasink.Granted("x")
	fsdatasink.Log.Info("heard %s and %t", region, more)
	fsdatasink.Count("rows", uint64(batch.Rows))
	fsdatasink.Gauge("share", 0.5)
	response, err := http.Send(&http.Request{URL: p.URL, Headers: []http.Header{{Name: "x-who", Value: "numbers"}}})
	if err != nil {
		return err
	}
	keys := make([]string, batch.Rows)
	for at := range keys {
		keys[at] = countries.Text(at)
	}
	names, err := p.names.GetMany(keys)
	if err != nil {
		return err
	}
	for at, key := range keys {
		p.seen++
		p.held = append(p.held, row{key, string(response.Body), names[at], p.seen})
	}
	return nil
}

// Flush gives out what is held.
func (p *plugin) Flush(reason fsdatasink.FlushReason, output *fsdatasink.Output) error {
	for _, held := range p.held {
		output.Values("country").PutText(held.country)
		output.Values("seen").PutInt(held.seen)
		output.Values("greeting").PutText(held.greeting)
		if held.name == nil {
			output.Values("name").PutNull()
		} else {
			output.Values("name").PutBytes(held.name)
		}
	}
	p.held = nil
	return nil
}

// Snapshot is the number of the last row.
func (p *plugin) Snapshot() ([]byte, error) { return strconv.AppendInt(nil, p.seen, 10), nil }

// Restore goes on from there.
func (p *plugin) Restore(snapshot []byte) error {
	seen, err := strconv.ParseInt(string(snapshot), 10, 64)
	p.seen = seen
	return err
}
