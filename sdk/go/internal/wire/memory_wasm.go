package wire

// The host puts what it hands over where this says.
//
//go:wasmexport cabi_realloc
func realloc(old, oldSize, align, size uint32) uint32 {
	made := Make(int(size))
	copy(made, At(old, oldSize))
	return Address(made)
}
