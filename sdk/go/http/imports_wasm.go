package http

//go:wasmimport wasi:http/types@0.2.12 [static]fields.from-list
func fieldsFrom(list, count, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]fields.entries
func fieldsEntries(fields, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]fields
func fieldsDrop(fields uint32)

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-request
func requestNew(fields uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-method
func requestMethod(request, which, name, size uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-scheme
func requestScheme(request, is, which, name, size uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-authority
func requestAuthority(request, is, name, size uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-path-with-query
func requestPath(request, is, path, size uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-request
func requestDrop(request uint32)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-body
func bodyDrop(body uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.body
func requestBody(request, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-body.write
func bodyWrite(body, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [static]outgoing-body.finish
func bodyFinish(body, hasTrailers, trailers, answer uint32)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.blocking-write-and-flush
func streamWrite(stream, data, size, answer uint32)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]output-stream
func outputDrop(stream uint32)

//go:wasmimport wasi:http/outgoing-handler@0.2.12 handle
func handle(request, hasOptions, options, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.get
func futureGet(future, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.subscribe
func futureSubscribe(future uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-incoming-response
func futureDrop(future uint32)

//go:wasmimport wasi:io/poll@0.2.12 [method]pollable.block
func pollableBlock(pollable uint32)

//go:wasmimport wasi:io/poll@0.2.12 [resource-drop]pollable
func pollableDrop(pollable uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.status
func responseStatus(response uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.headers
func responseHeaders(response uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.consume
func responseConsume(response, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-response
func responseDrop(response uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-body.stream
func incomingStream(body, answer uint32)

//go:wasmimport wasi:http/types@0.2.12 [static]incoming-body.finish
func incomingFinish(body uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-trailers
func trailersDrop(trailers uint32)

//go:wasmimport wasi:io/streams@0.2.12 [method]input-stream.blocking-read
func streamRead(stream uint32, size uint64, answer uint32)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]input-stream
func inputDrop(stream uint32)

//go:wasmimport wasi:http/types@0.2.12 http-error-code
func errorCode(broken, answer uint32)

//go:wasmimport wasi:io/error@0.2.12 [resource-drop]error
func errorDrop(broken uint32)
