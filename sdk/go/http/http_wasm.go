package http

import (
	"fmt"
	"slices"
	"strings"

	"fsdatasink"
	"fsdatasink/internal/wire"
)

// Bytes that are read at once, and that the host takes at once.
const (
	readSize  = 65536
	writeSize = 4096
)

// The cases of the interface's error, and those where trying again is of no use.
var (
	codes = strings.Fields(`DNS-timeout DNS-error destination-not-found destination-unavailable destination-IP-prohibited
		destination-IP-unroutable connection-refused connection-terminated connection-timeout connection-read-timeout
		connection-write-timeout connection-limit-reached TLS-protocol-error TLS-certificate-error TLS-alert-received HTTP-request-denied
		HTTP-request-length-required HTTP-request-body-size HTTP-request-method-invalid HTTP-request-URI-invalid
		HTTP-request-URI-too-long HTTP-request-header-section-size HTTP-request-header-size HTTP-request-trailer-section-size
		HTTP-request-trailer-size HTTP-response-incomplete HTTP-response-header-section-size HTTP-response-header-size
		HTTP-response-body-size HTTP-response-trailer-section-size HTTP-response-trailer-size HTTP-response-transfer-coding
		HTTP-response-content-coding HTTP-response-timeout HTTP-upgrade-failed HTTP-protocol-error loop-detected configuration-error
		internal-error`)
	refusals = strings.Fields(`destination-IP-prohibited connection-limit-reached HTTP-request-denied HTTP-request-body-size
		HTTP-response-header-section-size HTTP-response-body-size`)
	methods = strings.Fields("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH")
)

func (r *Request) refused(words string) error {
	return fsdatasink.InvalidConfig("%s is refused: %s", r.URL, words)
}

func (r *Request) fault(code byte) error {
	words := "unknown"
	if int(code) < len(codes) {
		words = codes[code]
	}
	if slices.Contains(refusals, words) {
		return r.refused(words)
	}
	return fsdatasink.Retry(0, "%s does not answer: %s", r.URL, words)
}

// Send sends a request and reads the whole response.
func Send(request *Request) (*Response, error) {
	fields := wire.NewRecord(16 * len(request.Headers))
	for at, header := range request.Headers {
		fields.PutText(16*at, header.Name)
		fields.PutText(16*at+8, header.Value)
	}
	answer := wire.NewRecord(40)
	fieldsFrom(wire.Address(fields), uint32(len(request.Headers)), wire.Address(answer))
	if answer.Byte(0) != 0 {
		return nil, request.refused("a header")
	}
	outgoing := requestNew(answer.Number(4))
	err := request.address(outgoing)
	if err == nil {
		requestBody(outgoing, wire.Address(answer))
		if answer.Byte(0) != 0 {
			err = request.refused("the body")
		}
	}
	if err != nil {
		requestDrop(outgoing)
		return nil, err
	}
	body := answer.Number(4)
	handle(outgoing, 0, 0, wire.Address(answer))
	if answer.Byte(0) != 0 {
		bodyDrop(body)
		return nil, request.fault(answer.Byte(8))
	}
	future := answer.Number(8)
	defer futureDrop(future)
	write(body, request.Body)
	// An option of a result of a result.
	whole := wire.NewRecord(56)
	for futureGet(future, wire.Address(whole)); whole.Byte(0) == 0; futureGet(future, wire.Address(whole)) {
		wait := futureSubscribe(future)
		pollableBlock(wait)
		pollableDrop(wait)
	}
	if whole.Byte(8) != 0 {
		return nil, fmt.Errorf("the response of %s was taken before", request.URL)
	}
	if whole.Byte(16) != 0 {
		return nil, request.fault(whole.Byte(24))
	}
	return request.read(whole.Number(24))
}

// Method, scheme, host and path of a request that was begun.
func (r *Request) address(to uint32) error {
	scheme, rest, _ := strings.Cut(r.URL, "://")
	rest, _, _ = strings.Cut(rest, "#")
	host, path := rest, "/"
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		host, path = rest[:at], rest[at:]
	}
	if scheme != "http" && scheme != "https" || host == "" {
		return fsdatasink.InvalidConfig("%q is not an address such as https://api.example.com/path", r.URL)
	}
	if path[0] != '/' {
		path = "/" + path
	}
	method := r.Method
	if method == "" {
		method = "GET"
	}
	number := slices.Index(methods, method)
	if number < 0 {
		number = len(methods)
	}
	var encrypted uint32
	if scheme == "https" {
		encrypted = 1
	}
	name, nameSize := wire.Passed(method)
	if requestMethod(to, uint32(number), name, nameSize) != 0 {
		return r.refused("the method")
	}
	if requestScheme(to, 1, encrypted, 8, 0) != 0 {
		return r.refused("the scheme")
	}
	authority, authoritySize := wire.Passed(host)
	if requestAuthority(to, 1, authority, authoritySize) != 0 {
		return r.refused("the host")
	}
	place, placeSize := wire.Passed(path)
	if requestPath(to, 1, place, placeSize) != 0 {
		return r.refused("the path")
	}
	return nil
}

// Writes a body to its end. A host that refuses the request closes the stream; why, the response says.
func write(body uint32, bytes []byte) {
	answer := wire.NewRecord(40)
	bodyWrite(body, wire.Address(answer))
	if answer.Byte(0) == 0 {
		stream := answer.Number(4)
		for piece := range slices.Chunk(bytes, writeSize) {
			address, size := wire.Passed(string(piece))
			streamWrite(stream, address, size, wire.Address(answer))
			if answer.Byte(0) != 0 {
				if answer.Byte(4) == 0 {
					errorDrop(answer.Number(8))
				}
				break
			}
		}
		outputDrop(stream)
	}
	bodyFinish(body, 0, 0, wire.Address(answer))
}

// Reads a response to its end.
func (r *Request) read(from uint32) (*Response, error) {
	defer responseDrop(from)
	response := &Response{Status: int(responseStatus(from))}
	fields, answer := responseHeaders(from), wire.NewRecord(40)
	fieldsEntries(fields, wire.Address(answer))
	entries := wire.Record(wire.At(answer.Number(0), 16*answer.Number(4)))
	for at := 0; at < len(entries); at += 16 {
		header := Header{strings.ToLower(entries.Text(at)), entries.Text(at + 8)}
		response.Headers = append(response.Headers, header)
	}
	fieldsDrop(fields)
	responseConsume(from, wire.Address(answer))
	if answer.Byte(0) != 0 {
		return nil, fmt.Errorf("the body of %s was taken before", r.URL)
	}
	body := answer.Number(4)
	incomingStream(body, wire.Address(answer))
	stream := answer.Number(4)
	defer func() {
		inputDrop(stream)
		trailersDrop(incomingFinish(body))
	}()
	for {
		streamRead(stream, readSize, wire.Address(answer))
		if answer.Byte(0) == 0 {
			response.Body = append(response.Body, answer.Bytes(4)...)
			continue
		}
		if answer.Byte(4) != 0 {
			return response, nil
		}
		broken := answer.Number(8)
		errorCode(broken, wire.Address(answer))
		errorDrop(broken)
		if answer.Byte(0) != 0 {
			return nil, r.fault(answer.Byte(8))
		}
		return nil, fsdatasink.Retry(0, "%s broke off", r.URL)
	}
}
