//! Requests: `{"method", "scheme", "authority", "path", "body_bytes", "header_bytes", "headers", "times", "follow"}`.

use serde_json::Value;

use crate::{
    bindings::wasi::{
        http::{
            outgoing_handler,
            types::{
                ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
                OutgoingRequest, Scheme, http_error_code,
            },
        },
        io::streams::StreamError,
    },
    number, text,
};

/// Tries a request and tells what it came to: the status and the first bytes of the body, or the error.
pub(crate) fn attempt(step: &Value) -> String {
    let at_once = number(step, "at_once");
    if at_once > 0 {
        let sent: Vec<_> = (0..at_once).map(|_| send(step, text(step, "authority"), text(step, "path"))).collect();
        return tell(sent.into_iter().map(|future| wait(&future?).and_then(|response| read(&response))));
    }
    let times = number(step, "times").max(1);
    tell((0..times).map(|_| {
        let response = wait(&send(step, text(step, "authority"), text(step, "path"))?)?;
        let location = response.headers().get("location").into_iter().next();
        let target = location.and_then(|value| String::from_utf8(value).ok());
        let target = target.as_deref().and_then(|target| target.strip_prefix("http://"));
        let Some(target) = target.filter(|_| step.get("follow").is_some()) else { return read(&response) };
        let (authority, path) = target.split_once('/').unwrap_or((target, ""));
        let followed = wait(&send(step, authority, &format!("/{path}"))?)?;
        read(&followed)
    }))
}

/// What tries came to; the same outcome in a row is told once.
fn tell(outcomes: impl Iterator<Item = Result<String, ErrorCode>>) -> String {
    let words = |error| match error {
        ErrorCode::InternalError(Some(words)) => words,
        error => format!("{error:?}").replace("ErrorCode::", ""),
    };
    let mut told: Vec<String> = outcomes.map(|outcome| outcome.unwrap_or_else(words)).collect();
    told.dedup();
    told.join(", ")
}

/// Sends a request.
fn send(step: &Value, authority: &str, path: &str) -> Result<FutureIncomingResponse, ErrorCode> {
    let wrong = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let fields = Fields::new();
    for at in 0..number(step, "headers") {
        fields.append(&format!("x-{at}"), b"v").map_err(|error| wrong(&format!("{error:?}")))?;
    }
    if number(step, "header_bytes") > 0 {
        let value = vec![b'x'; usize::try_from(number(step, "header_bytes")).unwrap_or_default()];
        fields.append("x-long", &value).map_err(|error| wrong(&format!("{error:?}")))?;
    }
    let request = OutgoingRequest::new(fields);
    let method = match text(step, "method") {
        "" | "GET" => Method::Get,
        "POST" => Method::Post,
        other => Method::Other(other.to_owned()),
    };
    let scheme = if text(step, "scheme") == "https" { Scheme::Https } else { Scheme::Http };
    request.set_method(&method).map_err(|()| wrong("method"))?;
    request.set_scheme(Some(&scheme)).map_err(|()| wrong("scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| wrong("authority"))?;
    request.set_path_with_query(Some(path)).map_err(|()| wrong("path"))?;
    let body = request.body().map_err(|()| wrong("body"))?;
    let future = outgoing_handler::handle(request, None)?;
    let stream = body.write().map_err(|()| wrong("body"))?;
    let piece = [b'x'; 4096];
    let mut left = usize::try_from(number(step, "body_bytes")).unwrap_or_default();
    while left > 0 {
        let bytes = left.min(piece.len());
        // Whoever refuses the request closes the stream; the response says why.
        if stream.blocking_write_and_flush(piece.get(..bytes).unwrap_or_default()).is_err() {
            break;
        }
        left -= bytes;
    }
    drop(stream);
    let _closed = OutgoingBody::finish(body, None);
    Ok(future)
}

/// Waits for the head of the response.
fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    loop {
        match future.get() {
            Some(answer) => return answer.unwrap_or(Err(ErrorCode::InternalError(None))),
            None => future.subscribe().block(),
        }
    }
}

/// Reads the body.
fn read(response: &IncomingResponse) -> Result<String, ErrorCode> {
    let wrong = || ErrorCode::InternalError(Some("body".to_owned()));
    let status = response.status();
    let incoming = response.consume().map_err(|()| wrong())?;
    let stream = incoming.stream().map_err(|()| wrong())?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(piece) => body.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let words = || ErrorCode::InternalError(Some(error.to_debug_string()));
                return Err(http_error_code(&error).unwrap_or_else(words));
            }
        }
    }
    drop(stream);
    drop(IncomingBody::finish(incoming));
    let shown: String = String::from_utf8_lossy(&body).chars().take(80).collect();
    Ok(format!("{status} {} bytes {shown}", body.len()))
}
