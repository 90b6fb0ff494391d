// Package wire has what crosses the boundary: records in the layout of the component model, and memory that stays where it is until the
// host has taken an answer. A pointer has 4 bytes there and 8 in Go, so records are written number by number.
package wire

import (
	"encoding/binary"
	"unsafe"
)

// held is what the host may look at until the call is over; the garbage collector moves nothing, but would take it away.
var held [][]uint64

// Make gives zeroed bytes at a multiple of 8 that live until Release.
func Make(size int) []byte {
	if size == 0 {
		return nil
	}
	words := make([]uint64, (size+7)/8)
	held = append(held, words)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
}

// Release lets go of all that was made for a call.
func Release() { held = nil }

// Address of bytes, as the host counts.
func Address(data []byte) uint32 {
	if len(data) == 0 {
		// Never read, but aligned for whatever it would be.
		return 8
	}
	return uint32(uintptr(unsafe.Pointer(&data[0])))
}

// At gives the bytes at an address that the host was given before.
func At(address, size uint32) []byte {
	if size == 0 {
		return nil
	}
	// The address was one of Make, whose memory is held.
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(address))), size)
}

// Passed is the address and the size of words that stay until the call is over.
func Passed(words string) (uint32, uint32) {
	copied := Make(len(words))
	copy(copied, words)
	return Address(copied), uint32(len(words))
}

// Record is a record, a variant or a list of them.
type Record []byte

// NewRecord has all zeros.
func NewRecord(size int) Record { return Record(Make(size)) }

// PutByte puts a truth or the number of a case.
func (r Record) PutByte(at int, value byte) { r[at] = value }

// PutNumber puts 32 bits.
func (r Record) PutNumber(at int, value uint32) { binary.LittleEndian.PutUint32(r[at:], value) }

// PutBytes puts a list of bytes; they are copied, so that they stay.
func (r Record) PutBytes(at int, value []byte) {
	copied := Make(len(value))
	copy(copied, value)
	r.PutList(at, copied, len(value))
}

// PutText puts a text.
func (r Record) PutText(at int, value string) { r.PutBytes(at, []byte(value)) }

// PutList puts a list of records that were made here.
func (r Record) PutList(at int, items []byte, count int) {
	r.PutNumber(at, Address(items))
	r.PutNumber(at+4, uint32(count))
}

// Byte reads a truth or the number of a case.
func (r Record) Byte(at int) byte { return r[at] }

// Number reads 32 bits.
func (r Record) Number(at int) uint32 { return binary.LittleEndian.Uint32(r[at:]) }

// Bytes reads a list of bytes, which live as long as the call.
func (r Record) Bytes(at int) []byte { return At(r.Number(at), r.Number(at+4)) }

// Text reads a text.
func (r Record) Text(at int) string { return string(r.Bytes(at)) }
