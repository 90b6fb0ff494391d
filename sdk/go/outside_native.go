//go:build !wasm

package fsdatasink

import "fmt"

// In unit tests of a plugin's own there is no host: lines are printed, nothing is counted, and nothing is granted.

func writeLog(level uint32, message string) { fmt.Println(message) }

// Count adds to a counter among the host's metrics.
func Count(name string, amount uint64) {}

// Gauge sets a gauge among the host's metrics.
func Gauge(name string, value float64) {}

// Granted is a value that the pipeline grants under `grants.config`, and whether there is one.
func Granted(key string) (string, bool) { return "", false }
