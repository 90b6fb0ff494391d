package fsdatasink

import "fsdatasink/internal/wire"

//go:wasmimport wasi:logging/logging@0.1.0-draft log
func hostLog(level, context, contextSize, message, messageSize uint32)

//go:wasmimport fs-data-sink:plugin/metrics@0.1.0 count
func hostCount(name, size uint32, amount uint64)

//go:wasmimport fs-data-sink:plugin/metrics@0.1.0 gauge
func hostGauge(name, size uint32, value float64)

//go:wasmimport wasi:config/store@0.2.0-rc.1 get
func hostGranted(key, size, answer uint32)

func writeLog(level uint32, message string) {
	address, size := wire.Passed(message)
	hostLog(level, 8, 0, address, size)
}

// Count adds to a counter among the host's metrics.
func Count(name string, amount uint64) {
	address, size := wire.Passed(name)
	hostCount(address, size, amount)
}

// Gauge sets a gauge among the host's metrics.
func Gauge(name string, value float64) {
	address, size := wire.Passed(name)
	hostGauge(address, size, value)
}

// Granted is a value that the pipeline grants under `grants.config`, and whether there is one.
func Granted(key string) (string, bool) {
	address, size := wire.Passed(key)
	answer := wire.NewRecord(16)
	hostGranted(address, size, wire.Address(answer))
	if answer.Byte(0) != 0 || answer.Byte(4) == 0 {
		return "", false
	}
	return answer.Text(8), true
}
