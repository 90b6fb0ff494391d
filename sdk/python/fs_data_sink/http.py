"""Requests to servers that the pipeline grants under `grants.http`.

    from fs_data_sink.http import get, send

    response = get("https://api.example.com/customers/7")
    response = send("POST", "https://api.example.com/names", {"content-type": "application/json"}, b"[7, 8]")

One request at a time, with bodies in memory; redirects are not followed. What is refused raises `InvalidConfig`; a server that does not
answer raises `Retryable`: uncaught, the host brings the same batch again.
"""

from . import InvalidConfig, Retryable
from ._host import imported

_types, _handler, _streams = imported("wasi_http_types"), imported("outgoing_handler"), imported("streams")

__all__ = ["Response", "get", "send"]

# Bytes that are read at once, and that the host takes at once.
_READ, _WRITE = 65536, 4096
_METHODS = ["Get", "Head", "Post", "Put", "Delete", "Options", "Patch"]
_REFUSALS = ["HttpRequestDenied", "DestinationIpProhibited", "ConnectionLimitReached", "HttpRequestBodySize", "HttpResponseBodySize", "HttpResponseHeaderSectionSize"]


class Response:
    """A response: its status, its fields as a dict of texts by names in small letters, its body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


def get(url, headers=None):
    """Asks for something."""
    return send("GET", url, headers)


def send(method, url, headers=None, body=b""):
    """Sends a request and reads the whole response."""
    if _types is None:
        raise RuntimeError("there is no host: a unit test puts another function in the place of this one")
    scheme, authority, path = _parts(url)
    try:
        fields = _types.Fields.from_list([(name, value.encode()) for name, value in (headers or {}).items()])
        request = _types.OutgoingRequest(fields)
        name = method.capitalize()
        request.set_method(getattr(_types, f"Method_{name}")() if name in _METHODS else _types.Method_Other(method))
        request.set_scheme(scheme)
        request.set_authority(authority)
        request.set_path_with_query(path)
        outgoing = request.body()
        future = _handler.handle(request, None)
        _write(outgoing, body)
        answer = future.get()
        while answer is None:
            with future.subscribe() as pollable:
                pollable.block()
            answer = future.get()
        return _read(_value(_value(answer)))
    except Exception as error:
        raise _fault(url, error) from None


def _value(result):
    """What is in a result, where it is no error."""
    if hasattr(result, "value") and type(result).__name__ == "Err":
        raise result
    return result.value


def _parts(url):
    """Scheme, host and path of an address."""
    scheme, separator, rest = url.partition("://")
    rest = rest.partition("#")[0]
    at = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    if not separator or scheme not in ("http", "https") or at == 0:
        raise InvalidConfig(f"{url!r} is not an address such as https://api.example.com/path")
    path = rest[at:] if rest[at:].startswith("/") else "/" + rest[at:]
    return (_types.Scheme_Https if scheme == "https" else _types.Scheme_Http)(), rest[:at], path


def _write(outgoing, body):
    """Writes a body to its end. A host that refuses the request closes the stream; why, the response says."""
    try:
        with outgoing.write() as stream:
            for at in range(0, len(body), _WRITE):
                stream.blocking_write_and_flush(body[at : at + _WRITE])
        _types.OutgoingBody.finish(outgoing, None)
    except Exception as error:
        if not hasattr(error, "value"):
            raise


def _read(response):
    """Reads a response to its end."""
    status, parts = response.status(), []
    with response.headers() as fields:
        headers = {name.lower(): value.decode("utf-8", "replace") for name, value in fields.entries()}
    incoming = response.consume()
    with incoming.stream() as stream:
        try:
            while True:
                parts.append(stream.blocking_read(_READ))
        except Exception as error:
            if not isinstance(getattr(error, "value", None), _streams.StreamError_Closed):
                raise
    _types.IncomingBody.finish(incoming).__exit__(None, None, None)
    return Response(status, headers, b"".join(parts))


def _fault(url, error):
    """An error of the interface as an exception of this SDK."""
    fault = getattr(error, "value", None)
    if isinstance(fault, _streams.StreamError_LastOperationFailed):
        fault = _types.http_error_code(fault.value) or fault
    name = type(fault).__name__.removeprefix("ErrorCode_")
    words = f"{name}: {fault.value}" if getattr(fault, "value", None) else name
    if name in _REFUSALS or name.startswith("HeaderError_"):
        return InvalidConfig(f"{url} is refused: {words}")
    return error if fault is None and not hasattr(error, "value") else Retryable(f"{url} does not answer: {words}")
