//! Requests to servers that the pipeline's YAML grants under `grants.http`.
//!
//! One request at a time, with bodies in memory; redirects are not followed. In native tests the server is what
//! [`crate::testing::grant_server`] said.

use crate::ProcessError;

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be asked.
    #[error("{0:?} is not an address such as https://api.example.com/path")]
    NoAddress(String),
    /// The host refuses: it is not granted, or too much.
    #[error("{0} is refused: {1}")]
    Refused(String, String),
    /// The server or the way to it failed.
    #[error("{0} does not answer: {1}")]
    Failed(String, String),
}

impl From<HttpError> for ProcessError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::NoAddress(_) | HttpError::Refused(..) => Self::failed(error.to_string()),
            // What does not answer now may answer later; the host bounds how often that is tried.
            HttpError::Failed(..) => Self::retry(error.to_string()),
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In capital letters.
    pub method: String,
    /// With `http://` or `https://`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

impl Request {
    /// Asks for something.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Hands something over.
    #[must_use]
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST".to_owned(), body: body.into(), ..Self::get(url) }
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends it and reads the whole response.
    pub fn send(&self) -> Result<Response, HttpError> {
        #[cfg(target_arch = "wasm32")]
        return guest::send(self);
        #[cfg(not(target_arch = "wasm32"))]
        crate::testing::outside(|outside| match &mut outside.server {
            Some(server) => server(self),
            None => Err(HttpError::Refused(self.url.clone(), "no server is granted".to_owned())),
        })
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole.
    pub body: Vec<u8>,
}

/// An address in its parts: whether it is encrypted, host and port, path.
#[cfg_attr(not(any(target_arch = "wasm32", test)), expect(dead_code, reason = "only components take addresses apart"))]
fn parts(url: &str) -> Option<(bool, &str, &str)> {
    let (is_encrypted, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (!authority.is_empty()).then_some((is_encrypted, authority, path))
}

/// The way through the interface.
#[cfg(target_arch = "wasm32")]
mod guest {
    use super::{HttpError, Request, Response, parts};
    use crate::guest::bindings::wasi::{
        http::{
            outgoing_handler,
            types::{ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme},
        },
        io::streams::StreamError,
    };

    /// Bytes read or written in one go.
    const PIECE_BYTES: u64 = 64 << 10;

    /// Sends a request and reads the whole response.
    pub(super) fn send(request: &Request) -> Result<Response, HttpError> {
        let (is_encrypted, authority, path) =
            parts(&request.url).ok_or_else(|| HttpError::NoAddress(request.url.clone()))?;
        let refused = |words: &str| HttpError::Refused(request.url.clone(), words.to_owned());
        let fields: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        let fields = Fields::from_list(&fields).map_err(|error| refused(&error.to_string()))?;
        let outgoing = OutgoingRequest::new(fields);
        let scheme = if is_encrypted { Scheme::Https } else { Scheme::Http };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        outgoing.set_method(&method(&request.method)).map_err(|()| refused("the method"))?;
        outgoing.set_scheme(Some(&scheme)).map_err(|()| refused("the scheme"))?;
        outgoing.set_authority(Some(authority)).map_err(|()| refused("the host"))?;
        outgoing.set_path_with_query(Some(&path)).map_err(|()| refused("the path"))?;
        let body = outgoing.body().map_err(|()| refused("the body"))?;
        let future = outgoing_handler::handle(outgoing, None).map_err(|error| fault(request, &error))?;
        write(body, &request.body).map_err(|words| HttpError::Failed(request.url.clone(), words))?;
        let response = loop {
            match future.get() {
                Some(answer) => break answer.map_err(|()| refused("the response was taken before"))?,
                None => future.subscribe().block(),
            }
        };
        let response = response.map_err(|error| fault(request, &error))?;
        read(request, response)
    }

    /// Writes a body to its end.
    fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), String> {
        let stream = body.write().map_err(|()| "the body was taken before".to_owned())?;
        // A host that refuses the request closes the stream; why, the response says.
        let _closed = bytes.chunks(4096).try_for_each(|piece| stream.blocking_write_and_flush(piece));
        drop(stream);
        let _closed = OutgoingBody::finish(body, None);
        Ok(())
    }

    /// Reads a response to its end.
    fn read(request: &Request, response: IncomingResponse) -> Result<Response, HttpError> {
        let failed = |words: String| HttpError::Failed(request.url.clone(), words);
        let status = response.status();
        let headers = response.headers().entries();
        let incoming = response.consume().map_err(|()| failed("the body was taken before".to_owned()))?;
        let stream = incoming.stream().map_err(|()| failed("the body was taken before".to_owned()))?;
        let mut body = Vec::new();
        loop {
            match stream.blocking_read(PIECE_BYTES) {
                Ok(piece) => body.extend(piece),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    let code = crate::guest::bindings::wasi::http::types::http_error_code(&error);
                    return Err(code.map_or_else(|| failed(error.to_debug_string()), |code| fault(request, &code)));
                }
            }
        }
        drop(stream);
        drop(IncomingBody::finish(incoming));
        Ok(Response { status, headers, body })
    }

    /// A method by its name.
    fn method(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            other => Method::Other(other.to_owned()),
        }
    }

    /// An error of the interface.
    fn fault(request: &Request, error: &ErrorCode) -> HttpError {
        let words = error.to_string();
        match error {
            ErrorCode::HttpRequestDenied
            | ErrorCode::DestinationIpProhibited
            | ErrorCode::ConnectionLimitReached
            | ErrorCode::HttpRequestBodySize(_)
            | ErrorCode::HttpResponseBodySize(_)
            | ErrorCode::HttpResponseHeaderSectionSize(_) => HttpError::Refused(request.url.clone(), words),
            _ => HttpError::Failed(request.url.clone(), words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(parts("https://a.b:8443/c?d=e#f"), Some((true, "a.b:8443", "/c?d=e")));
        assert_eq!(parts("http://a?x"), Some((false, "a", "?x")));
        assert_eq!(parts("http://[::1]:80"), Some((false, "[::1]:80", "")));
        assert_eq!((parts("ftp://a"), parts("a.b/c"), parts("https:///x")), (None, None, None));
    }

    #[test]
    fn a_server_is_what_the_test_granted() {
        let request = Request::post("https://a/b", "body").header("x-key", "k");
        assert!(matches!(request.send(), Err(HttpError::Refused(..))));
        crate::testing::grant_server(|request| {
            Ok(Response { status: 200, headers: Vec::new(), body: request.body.clone() })
        });
        assert_eq!(request.send().unwrap().body, b"body");
    }
}
