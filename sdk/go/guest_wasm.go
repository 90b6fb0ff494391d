package fsdatasink

import (
	"errors"
	"math"

	"fsdatasink/internal/wire"
)

//go:wasmimport fs-data-sink:plugin/batches@0.1.0 [method]batch.num-rows
func batchRows(batch int32) uint32

//go:wasmimport fs-data-sink:plugin/batches@0.1.0 [method]batch.read-column
func batchReadColumn(batch int32, position, answer uint32)

//go:wasmimport fs-data-sink:plugin/batches@0.1.0 [resource-drop]batch
func batchDrop(batch int32)

// The cases of the interface's selection and payload that are used here.
const (
	keepAll, keepNone, keepBitmap            = 0, 1, 2
	unchanged, extendColumns, replaceColumns = 0, 3, 4
)

// A result of at most 40 bytes: 0 and a value, or 1 and an error, at 4.
func result(value func(wire.Record), err error) uint32 {
	answer := wire.NewRecord(40)
	if err != nil {
		PutFault(answer, err)
	} else if value != nil {
		value(answer[4:])
	}
	return wire.Address(answer)
}

// PutFault puts an error into a result; for the package state too.
func PutFault(answer wire.Record, err error) {
	fault := &Fault{kind: failed, words: err.Error()}
	errors.As(err, &fault)
	answer.PutByte(0, 1)
	answer.PutByte(4, fault.kind)
	answer.PutText(8, fault.words)
	if fault.kind == retryable {
		answer.PutByte(16, 1)
		answer.PutNumber(20, uint32(min(fault.pause.Milliseconds(), math.MaxUint32)))
	}
}

//go:wasmexport fs-data-sink:plugin/transform@0.1.0#describe
func describe() uint32 {
	answer := wire.NewRecord(52)
	answer.PutText(0, about.Name)
	answer.PutText(8, about.Version)
	answer.PutText(16, about.Description)
	roles := map[string]byte{"decode": 1, "filter": 2, "enrich": 4}
	for _, role := range about.Roles {
		answer[24] |= roles[role]
	}
	if about.ConfigSchema != "" {
		answer.PutByte(28, 1)
		answer.PutText(32, about.ConfigSchema)
	}
	answer.PutByte(40, truth(about.BuffersRows))
	answer.PutByte(41, truth(about.Deterministic))
	sdk := wire.NewRecord(16)
	sdk.PutText(0, "sdk")
	sdk.PutText(8, "go/0.1.0")
	answer.PutList(44, sdk, 1)
	return wire.Address(answer)
}

//go:wasmexport fs-data-sink:plugin/transform@0.1.0#open
func open(config, configSize, schema, schemaSize, attributes, attributeCount uint32) uint32 {
	read, err := readSchema(append([]byte(nil), wire.At(schema, schemaSize)...))
	if err == nil {
		input = read
		added, err = plugin.Open(append([]byte(nil), wire.At(config, configSize)...), input)
	}
	var output []byte
	if err == nil && (len(added) > 0 || input.replaced) {
		output, err = input.extended(added).write()
	}
	return result(func(opened wire.Record) {
		if output != nil {
			opened.PutByte(0, 1)
			opened.PutBytes(4, output)
		}
	}, err)
}

//go:wasmexport fs-data-sink:plugin/transform@0.1.0#process
func process(handle int32, sequence uint64, attempt, attributes, attributeCount uint32) uint32 {
	batch := &Batch{Rows: int(batchRows(handle)), Schema: input, read: func(position int) (*Column, error) {
		return readColumn(handle, position)
	}}
	output := newOutput(batch.Rows, added)
	err := plugin.Process(batch, output)
	batchDrop(handle)
	var payload func(wire.Record)
	if err == nil {
		payload, err = payloadOf(output, true)
	}
	return result(func(answer wire.Record) {
		bits, kept := output.kept()
		switch {
		case kept == batch.Rows:
			answer.PutByte(0, keepAll)
		case kept == 0:
			answer.PutByte(0, keepNone)
		default:
			answer.PutByte(0, keepBitmap)
			answer.PutBytes(4, bits)
		}
		payload(answer[12:])
		rejected := wire.NewRecord(24 * len(output.rejections))
		for at, rejection := range output.rejections {
			one := rejected[24*at:]
			one.PutText(0, rejection.code)
			one.PutText(8, rejection.message)
			rows := wire.NewRecord(4 * len(rejection.rows))
			for number, row := range rejection.rows {
				rows.PutNumber(4*number, row)
			}
			one.PutList(16, rows, len(rejection.rows))
		}
		answer.PutList(24, rejected, len(output.rejections))
	}, err)
}

// How the columns of an output are put.
func payloadOf(output *Output, isBatch bool) (func(wire.Record), error) {
	rows := output.rows
	if (input.replaced || !isBatch) && len(output.columns) > 0 {
		rows = output.columns[0].count
	}
	if len(output.columns) == 0 || input.replaced && rows == 0 {
		which := byte(unchanged)
		if input.replaced {
			which = replaceColumns
		}
		return func(payload wire.Record) { payload.PutByte(0, which) }, nil
	}
	for _, values := range output.columns {
		if values.count != rows {
			return nil, errors.New(values.miscounted(rows))
		}
	}
	return func(payload wire.Record) {
		columns := wire.NewRecord(56 * len(output.columns))
		for at, values := range output.columns {
			putColumn(columns[56*at:], values.packed(output.dropped, input.replaced))
		}
		if !input.replaced {
			payload.PutByte(0, extendColumns)
			payload.PutList(4, columns, len(output.columns))
			return
		}
		batch := wire.NewRecord(8)
		batch.PutList(0, columns, len(output.columns))
		payload.PutByte(0, replaceColumns)
		payload.PutList(4, batch, 1)
	}, nil
}

func putColumn(to wire.Record, column *Column) {
	to.PutText(0, column.Name)
	to.PutText(8, column.Format)
	to.PutNumber(16, uint32(column.Rows))
	to.PutNumber(20, uint32(column.nulls))
	for at, part := range map[int][]byte{24: column.Validity, 36: column.Offsets} {
		if part != nil {
			to.PutByte(at, 1)
			to.PutBytes(at+4, part)
		}
	}
	to.PutBytes(48, column.Data)
}

func readColumn(handle int32, position int) (*Column, error) {
	answer := wire.NewRecord(60)
	batchReadColumn(handle, uint32(position), wire.Address(answer))
	if answer.Byte(0) != 0 {
		return nil, errors.New("this SDK does not read it")
	}
	from := answer[4:]
	column := &Column{Name: from.Text(0), Format: from.Text(8), Rows: int(from.Number(16)), Data: from.Bytes(48)}
	if from.Byte(24) != 0 {
		column.Validity = from.Bytes(28)
	}
	if from.Byte(36) != 0 {
		column.Offsets = from.Bytes(40)
	}
	return column, column.check()
}

//go:wasmexport fs-data-sink:plugin/transform@0.1.0#flush
func flush(reason uint32) uint32 {
	flusher, flushes := plugin.(Flusher)
	if !flushes {
		return result(nil, nil)
	}
	output := newOutput(0, added)
	err := flusher.Flush(FlushReason(reason), output)
	payload := func(wire.Record) {}
	if err == nil && len(output.columns) > 0 && output.columns[0].count > 0 {
		if input.replaced {
			payload, err = payloadOf(output, false)
		} else {
			err = errors.New("rows can be held only after Replace in Open")
		}
	}
	return result(payload, err)
}

//go:wasmexport fs-data-sink:plugin/transform@0.1.0#close
func closePlugin() {
	if closer, closes := plugin.(Closer); closes {
		closer.Close()
	}
}

//go:wasmexport cabi_post_fs-data-sink:plugin/transform@0.1.0#describe
func afterDescribe(uint32) { wire.Release() }

//go:wasmexport cabi_post_fs-data-sink:plugin/transform@0.1.0#open
func afterOpen(uint32) { wire.Release() }

//go:wasmexport cabi_post_fs-data-sink:plugin/transform@0.1.0#process
func afterProcess(uint32) { wire.Release() }

//go:wasmexport cabi_post_fs-data-sink:plugin/transform@0.1.0#flush
func afterFlush(uint32) { wire.Release() }

func truth(is bool) byte {
	if is {
		return 1
	}
	return 0
}
