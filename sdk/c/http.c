/* Requests to servers that the pipeline grants under `grants.http`. In: a request. Out: its whole response, or why there is none. What is not
 * called here is no import of the component. */
#include <string.h>

#include "internal.h"

#define TYPES "wasi:http/types@0.2.12"
#define STREAMS "wasi:io/streams@0.2.12"
/* Bytes that are read at once, and that the host takes at once. */
#define READ 65536
#define WRITE 4096

/* `error-code` of the WIT: which case, and room for what any of them has. */
typedef struct {
  uint8_t which;
  _Alignas(8) fds_option_text words;
  uint8_t rest[12];
} wire_code;
_Static_assert(sizeof(wire_code) == 32, "as large as the WIT has it");

typedef struct {
  uint8_t is_error;
  uint32_t handle;
} wire_handle;
typedef struct {
  uint8_t is_error;
  union {
    uint32_t handle;
    wire_code code;
  } value;
} wire_answer;
typedef struct {
  uint8_t is;
  _Alignas(8) uint8_t was_taken;
  _Alignas(8) wire_answer answer;
} wire_future;
typedef struct {
  uint8_t is_error;
  union {
    fds_text bytes;
    struct {
      uint8_t is_closed;
      uint32_t error;
    } fault;
  } value;
} wire_piece;
typedef struct {
  uint8_t is;
  wire_code code;
} wire_found_code;

FDS_IMPORT(TYPES, "[static]fields.from-list") void fields_from(const fds_header *, size_t count, wire_handle *);
FDS_IMPORT(TYPES, "[method]fields.entries") void fields_entries(uint32_t fields, fds_list *);
FDS_IMPORT(TYPES, "[resource-drop]fields") void fields_drop(uint32_t fields);
FDS_IMPORT(TYPES, "[constructor]outgoing-request") uint32_t request_new(uint32_t fields);
FDS_IMPORT(TYPES, "[method]outgoing-request.set-method") int32_t request_method(uint32_t, int32_t which, const char *name, size_t length);
FDS_IMPORT(TYPES, "[method]outgoing-request.set-scheme") int32_t request_scheme(uint32_t, int32_t is, int32_t which, const char *, size_t);
FDS_IMPORT(TYPES, "[method]outgoing-request.set-authority") int32_t request_authority(uint32_t, int32_t is, const char *, size_t);
FDS_IMPORT(TYPES, "[method]outgoing-request.set-path-with-query") int32_t request_path(uint32_t, int32_t is, const char *, size_t);
FDS_IMPORT(TYPES, "[resource-drop]outgoing-request") void request_drop(uint32_t request);
FDS_IMPORT(TYPES, "[resource-drop]outgoing-body") void body_drop(uint32_t body);
FDS_IMPORT(TYPES, "[method]outgoing-request.body") void request_body(uint32_t request, wire_handle *);
FDS_IMPORT(TYPES, "[method]outgoing-body.write") void body_write(uint32_t body, wire_handle *);
FDS_IMPORT(TYPES, "[static]outgoing-body.finish") void body_finish(uint32_t body, int32_t has_trailers, uint32_t trailers, wire_answer *);
FDS_IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush") void stream_write(uint32_t, const char *, size_t, wire_piece *);
FDS_IMPORT(STREAMS, "[resource-drop]output-stream") void output_drop(uint32_t stream);
FDS_IMPORT("wasi:http/outgoing-handler@0.2.12", "handle") void http_handle(uint32_t request, int32_t has, uint32_t options, wire_answer *);
FDS_IMPORT(TYPES, "[method]future-incoming-response.get") void future_get(uint32_t future, wire_future *);
FDS_IMPORT(TYPES, "[method]future-incoming-response.subscribe") uint32_t future_subscribe(uint32_t future);
FDS_IMPORT(TYPES, "[resource-drop]future-incoming-response") void future_drop(uint32_t future);
FDS_IMPORT("wasi:io/poll@0.2.12", "[method]pollable.block") void pollable_block(uint32_t pollable);
FDS_IMPORT("wasi:io/poll@0.2.12", "[resource-drop]pollable") void pollable_drop(uint32_t pollable);
FDS_IMPORT(TYPES, "[method]incoming-response.status") uint32_t response_status(uint32_t response);
FDS_IMPORT(TYPES, "[method]incoming-response.headers") uint32_t response_headers(uint32_t response);
FDS_IMPORT(TYPES, "[method]incoming-response.consume") void response_consume(uint32_t response, wire_handle *);
FDS_IMPORT(TYPES, "[resource-drop]incoming-response") void response_drop(uint32_t response);
FDS_IMPORT(TYPES, "[method]incoming-body.stream") void incoming_stream(uint32_t body, wire_handle *);
FDS_IMPORT(TYPES, "[static]incoming-body.finish") uint32_t incoming_finish(uint32_t body);
FDS_IMPORT(TYPES, "[resource-drop]future-trailers") void trailers_drop(uint32_t trailers);
FDS_IMPORT(STREAMS, "[method]input-stream.blocking-read") void stream_read(uint32_t stream, uint64_t length, wire_piece *);
FDS_IMPORT(STREAMS, "[resource-drop]input-stream") void input_drop(uint32_t stream);
FDS_IMPORT(TYPES, "http-error-code") void error_code(uint32_t error, wire_found_code *);
FDS_IMPORT("wasi:io/error@0.2.12", "[resource-drop]error") void error_drop(uint32_t error);

/* The cases of `error-code`; an exclamation mark where trying again is of no use. */
static const char *const CODES[] = {
    "DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable", "!destination-IP-prohibited", "destination-IP-unroutable",
    "connection-refused", "connection-terminated", "connection-timeout", "connection-read-timeout", "connection-write-timeout",
    "!connection-limit-reached", "TLS-protocol-error", "TLS-certificate-error", "TLS-alert-received", "!HTTP-request-denied",
    "HTTP-request-length-required", "!HTTP-request-body-size", "HTTP-request-method-invalid", "HTTP-request-URI-invalid",
    "HTTP-request-URI-too-long", "HTTP-request-header-section-size", "HTTP-request-header-size", "HTTP-request-trailer-section-size",
    "HTTP-request-trailer-size", "HTTP-response-incomplete", "!HTTP-response-header-section-size", "HTTP-response-header-size",
    "!HTTP-response-body-size", "HTTP-response-trailer-section-size", "HTTP-response-trailer-size", "HTTP-response-transfer-coding",
    "HTTP-response-content-coding", "HTTP-response-timeout", "HTTP-upgrade-failed", "HTTP-protocol-error", "loop-detected",
    "configuration-error", "internal-error",
};

static fds_result refused(const fds_request *request, const char *words) {
  return fds_invalid_config("%.*s is refused: %s", FDS_ARG(request->url), words);
}

static fds_result fault(const fds_request *request, const wire_code *code) {
  const char *words = code->which < sizeof CODES / sizeof *CODES ? CODES[code->which] : "unknown";
  if (*words == '!') return refused(request, words + 1);
  return fds_retry(0, "%.*s does not answer: %s", FDS_ARG(request->url), words);
}

/* Goes on where an address has these letters. */
static bool passes(fds_text *url, const char *letters) {
  size_t length = strlen(letters);
  if (url->length < length || memcmp(url->data, letters, length)) return false;
  url->data += length, url->length -= length;
  return true;
}

/* Method, scheme, host and path of a request that was begun. */
static fds_result addressed(const fds_request *request, uint32_t to) {
  static const char *const METHODS[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
  int32_t method = 0;
  const char *name = request->method ? request->method : "GET";
  while (method < 9 && strcmp(METHODS[method], name)) method++;
  fds_text rest = request->url;
  bool is_encrypted = passes(&rest, "https://");
  size_t host = 0, end = 0;
  if (!is_encrypted && !passes(&rest, "http://")) rest.length = 0;
  while (end < rest.length && rest.data[end] != '#') end++;
  while (host < end && rest.data[host] != '/' && rest.data[host] != '?') host++;
  if (!host) return fds_invalid_config("'%.*s' is not an address such as https://api.example.com/path", FDS_ARG(request->url));
  fds_text path = {rest.data + host, end - host};
  if (!path.length || *path.data != '/') path = fds_format("/%.*s", FDS_ARG(path));
  if (request_method(to, method, name, strlen(name))) return refused(request, "the method");
  if (request_scheme(to, 1, is_encrypted, "", 0)) return refused(request, "the scheme");
  if (request_authority(to, 1, rest.data, host)) return refused(request, "the host");
  if (request_path(to, 1, path.data, path.length)) return refused(request, "the path");
  return FDS_DONE;
}

/* Writes a body to its end. A host that refuses the request closes the stream; why, the response says. */
static void write(uint32_t body, fds_text bytes) {
  wire_handle stream;
  body_write(body, &stream);
  wire_piece piece = {stream.is_error, {{0}}};
  for (size_t at = 0; at < bytes.length && !piece.is_error; at += WRITE) {
    size_t left = bytes.length - at;
    stream_write(stream.handle, bytes.data + at, left < WRITE ? left : WRITE, &piece);
    if (piece.is_error && !piece.value.fault.is_closed) error_drop(piece.value.fault.error);
  }
  if (!stream.is_error) output_drop(stream.handle);
  wire_answer finished;
  body_finish(body, 0, 0, &finished);
}

/* Reads a response to its end. */
static fds_result read(const fds_request *request, uint32_t from, fds_response *response) {
  response->status = response_status(from);
  uint32_t fields = response_headers(from);
  fds_list entries;
  fields_entries(fields, &entries);
  response->headers = entries.items, response->header_count = entries.count;
  fields_drop(fields);
  wire_handle body, stream;
  response_consume(from, &body);
  if (body.is_error) return fds_failed("the body of %.*s was taken before", FDS_ARG(request->url));
  incoming_stream(body.handle, &stream);
  char *bytes = NULL;
  size_t length = 0, room = 0;
  fds_result result = FDS_DONE;
  for (;;) {
    wire_piece piece;
    stream_read(stream.handle, READ, &piece);
    if (!piece.is_error) {
      bytes = fds_grown(bytes, &room, length + piece.value.bytes.length, 1);
      if (piece.value.bytes.length) memcpy(bytes + length, piece.value.bytes.data, piece.value.bytes.length);
      length += piece.value.bytes.length;
      continue;
    }
    if (!piece.value.fault.is_closed) {
      wire_found_code found;
      error_code(piece.value.fault.error, &found);
      error_drop(piece.value.fault.error);
      result = found.is ? fault(request, &found.code) : fds_retry(0, "%.*s broke off", FDS_ARG(request->url));
    }
    break;
  }
  input_drop(stream.handle);
  trailers_drop(incoming_finish(body.handle));
  response->body = (fds_text){bytes, length};
  return result;
}

fds_result fds_http_send(const fds_request *request, fds_response *response) {
  wire_handle fields, body;
  fields_from(request->headers, request->header_count, &fields);
  if (fields.is_error) return refused(request, "a header");
  uint32_t outgoing = request_new(fields.handle);
  fds_result result = addressed(request, outgoing);
  if (result == FDS_DONE) {
    request_body(outgoing, &body);
    if (body.is_error) result = refused(request, "the body");
  }
  if (result != FDS_DONE) {
    request_drop(outgoing);
    return result;
  }
  wire_answer begun;
  http_handle(outgoing, 0, 0, &begun);
  if (begun.is_error) {
    body_drop(body.handle);
    return fault(request, &begun.value.code);
  }
  write(body.handle, request->body);
  wire_future answer;
  for (future_get(begun.value.handle, &answer); !answer.is; future_get(begun.value.handle, &answer)) {
    uint32_t wait = future_subscribe(begun.value.handle);
    pollable_block(wait);
    pollable_drop(wait);
  }
  future_drop(begun.value.handle);
  if (answer.was_taken) return fds_failed("the response of %.*s was taken before", FDS_ARG(request->url));
  if (answer.answer.is_error) return fault(request, &answer.answer.value.code);
  result = read(request, answer.answer.value.handle, response);
  response_drop(answer.answer.value.handle);
  return result;
}
