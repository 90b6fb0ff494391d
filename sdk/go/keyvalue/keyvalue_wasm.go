package keyvalue

import (
	"fmt"

	"fsdatasink"
	"fsdatasink/internal/wire"
)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft open
func storeOpen(name, size, answer uint32)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.get
func bucketGet(bucket, key, size, answer uint32)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.set
func bucketSet(bucket, key, size, value, valueSize, answer uint32)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.delete
func bucketDelete(bucket, key, size, answer uint32)

//go:wasmimport wasi:keyvalue/batch@0.2.0-draft get-many
func bucketGetMany(bucket, keys, count, answer uint32)

// Open opens a bucket.
func Open(name string) (*Bucket, error) {
	answer := wire.NewRecord(16)
	address, size := wire.Passed(name)
	storeOpen(address, size, wire.Address(answer))
	bucket := &Bucket{name: name, handle: answer.Number(4)}
	return bucket, bucket.asked(answer)
}

// Get is the value of a key, nil where there is none.
func (b *Bucket) Get(key string) ([]byte, error) {
	answer := wire.NewRecord(16)
	address, size := wire.Passed(key)
	bucketGet(b.handle, address, size, wire.Address(answer))
	if err := b.asked(answer); err != nil || answer.Byte(4) == 0 {
		return nil, err
	}
	return append([]byte{}, answer.Bytes(8)...), nil
}

// GetMany is the values of keys in their order, nil where there is none.
func (b *Bucket) GetMany(keys []string) ([][]byte, error) {
	answer := wire.NewRecord(16)
	list := wire.NewRecord(8 * len(keys))
	for at, key := range keys {
		list.PutText(8*at, key)
	}
	bucketGetMany(b.handle, wire.Address(list), uint32(len(keys)), wire.Address(answer))
	if err := b.asked(answer); err != nil {
		return nil, err
	}
	if got := int(answer.Number(8)); got != len(keys) {
		return nil, fmt.Errorf("the bucket %q was asked for %d keys, and answered %d", b.name, len(keys), got)
	}
	pairs := wire.Record(wire.At(answer.Number(4), uint32(20*len(keys))))
	values := make([][]byte, len(keys))
	for at := range values {
		if pairs.Byte(20*at) != 0 {
			values[at] = append([]byte{}, pairs.Bytes(20*at+12)...)
		}
	}
	return values, nil
}

// Set sets the value of a key.
func (b *Bucket) Set(key string, value []byte) error {
	answer := wire.NewRecord(16)
	address, size := wire.Passed(key)
	content, contentSize := wire.Passed(string(value))
	bucketSet(b.handle, address, size, content, contentSize, wire.Address(answer))
	return b.asked(answer)
}

// Delete takes a key away.
func (b *Bucket) Delete(key string) error {
	answer := wire.NewRecord(16)
	address, size := wire.Passed(key)
	bucketDelete(b.handle, address, size, wire.Address(answer))
	return b.asked(answer)
}

// An error of the interface: no such store, access denied, or other with words.
func (b *Bucket) asked(answer wire.Record) error {
	switch {
	case answer.Byte(0) == 0:
		return nil
	case answer.Byte(4) == 2:
		return fsdatasink.Retry(0, "the bucket %q cannot be asked: %s", b.name, answer.Text(8))
	}
	return fsdatasink.InvalidConfig("the bucket %q is not granted, or not for this: add it to grants.keyvalue", b.name)
}
