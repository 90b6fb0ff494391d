// Package state exports what the host records with the offsets: a plugin with Snapshot and Restore imports it for that alone.
//
//	import _ "fsdatasink/state"
package state

import (
	"errors"

	"fsdatasink"
	"fsdatasink/internal/wire"
)

//go:wasmexport fs-data-sink:plugin/state@0.1.0#snapshot
func snapshot() uint32 {
	answer := wire.NewRecord(40)
	stateful, is := fsdatasink.Registered().(fsdatasink.Stateful)
	if !is {
		fsdatasink.PutFault(answer, errors.New("the plugin has no Snapshot"))
	} else if made, err := stateful.Snapshot(); err != nil {
		fsdatasink.PutFault(answer, err)
	} else {
		answer.PutBytes(4, made)
	}
	return wire.Address(answer)
}

//go:wasmexport fs-data-sink:plugin/state@0.1.0#restore
func restore(data, size uint32) uint32 {
	answer := wire.NewRecord(40)
	stateful, is := fsdatasink.Registered().(fsdatasink.Stateful)
	if !is {
		fsdatasink.PutFault(answer, errors.New("the plugin has no Restore"))
	} else if err := stateful.Restore(append([]byte(nil), wire.At(data, size)...)); err != nil {
		fsdatasink.PutFault(answer, err)
	}
	return wire.Address(answer)
}

//go:wasmexport cabi_post_fs-data-sink:plugin/state@0.1.0#snapshot
func afterSnapshot(uint32) { wire.Release() }

//go:wasmexport cabi_post_fs-data-sink:plugin/state@0.1.0#restore
func afterRestore(uint32) { wire.Release() }
