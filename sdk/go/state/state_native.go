//go:build !wasm

// Package state exports what the host records with the offsets; there is no host in a unit test.
package state
