package fsdatasink

import "fmt"

// Log writes lines into the host's log.
var Log logger

type logger struct{}

func (logger) Debug(format string, arguments ...any) { writeLog(1, fmt.Sprintf(format, arguments...)) }
func (logger) Info(format string, arguments ...any)  { writeLog(2, fmt.Sprintf(format, arguments...)) }
func (logger) Warn(format string, arguments ...any)  { writeLog(3, fmt.Sprintf(format, arguments...)) }
func (logger) Error(format string, arguments ...any) { writeLog(4, fmt.Sprintf(format, arguments...)) }
