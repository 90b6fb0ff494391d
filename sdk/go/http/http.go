// Package http has requests to servers that the pipeline grants under `grants.http`. A plugin that does not import it does not ask to be
// granted any.
//
//	response, err := http.Get("https://api.example.com/customers/7")
//
// One request at a time, with bodies in memory; redirects are not followed. An error is fsdatasink.InvalidConfig where the host refuses, and
// fsdatasink.Retry where the server does not answer: handed on, the host brings the same batch again.
package http

// Header is a field.
type Header struct{ Name, Value string }

// Request is a request; without a method GET.
type Request struct {
	Method, URL string
	Headers     []Header
	Body        []byte
}

// Response is a response; names of fields are in small letters.
type Response struct {
	Status  int
	Headers []Header
	Body    []byte
}

// Get asks for something.
func Get(url string) (*Response, error) { return Send(&Request{URL: url}) }
