//go:build !wasm

package keyvalue

import "errors"

// In unit tests of a plugin's own there is no host; they put something else with these functions in the place of a Bucket.
var errNoHost = errors.New("there is no host")

// Open opens a bucket.
func Open(name string) (*Bucket, error) { return nil, errNoHost }

// Get is the value of a key, nil where there is none.
func (b *Bucket) Get(key string) ([]byte, error) { return nil, errNoHost }

// GetMany is the values of keys in their order, nil where there is none.
func (b *Bucket) GetMany(keys []string) ([][]byte, error) { return nil, errNoHost }

// Set sets the value of a key.
func (b *Bucket) Set(key string, value []byte) error { return errNoHost }

// Delete takes a key away.
func (b *Bucket) Delete(key string) error { return errNoHost }
