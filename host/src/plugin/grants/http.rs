//! `wasi:http/outgoing-handler`: requests of a plugin to servers that it was granted.
//!
//! Comes in: requests with a host, a port, a scheme and a method. Goes out: responses, whose bodies are read as the plugin reads
//! them. Promises: what was not granted is not looked up and not connected to; an address is judged after the look-up and is the
//! one that is connected to (`resolve`); certificates are checked against the host's name; no redirect is followed, no proxy of
//! the environment is asked, no cookie kept; bodies, headers, time and number have limits, and a request that breaks one ends
//! with an error of its own before the plugin's call ends. Connections are kept for the next request to the same server.

use std::{fs, net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::Frame,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{
    HEADER_BYTES_MAX,
    resolve::{Checked, Lookup},
    time_left,
};
use crate::{
    config::{HttpGrant, HttpScheme},
    plugin::{clock::CallClock, voice::Voice},
};
use refusal::{Refusal, refusal_of};

mod refusal;
#[cfg(test)]
mod tests;

/// Fields of one response; servers allow about as many.
const HEADERS_MAX: usize = 100;
/// How long a connection is kept for the next request: less than most servers keep it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// One server that was granted.
pub(super) struct Destination {
    /// How.
    grant: HttpGrant,
    /// Connects to it and to nothing else.
    client: reqwest::Client,
}

impl Destination {
    /// Reads its certificates; connects to nothing yet.
    pub(super) fn new(grant: &HttpGrant, lookup: &Arc<dyn Lookup>) -> Result<Self, String> {
        let resolver = Checked { lookup: Arc::clone(lookup), private: grant.private.clone() };
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .http1_max_headers(HEADERS_MAX)
            .connect_timeout(grant.connect_timeout)
            .pool_max_idle_per_host(grant.concurrent)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .dns_resolver(Arc::new(resolver));
        if let Some(path) = &grant.ca_file {
            let wrong = |error: String| format!("is granted {grant}, but {} {error}", path.display());
            let text = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
            let found = reqwest::Certificate::from_pem_bundle(&text)
                .map_err(|error| wrong(format!("holds no certificates in PEM: {error}")))?;
            builder = builder.tls_certs_merge(found);
        }
        let client =
            builder.build().map_err(|error| format!("is granted {grant}, but cannot send requests: {error}"))?;
        Ok(Self { grant: grant.clone(), client })
    }

    /// Where a request goes: built from the grant, so that nothing in the plugin's words can lead elsewhere.
    fn url(&self, uri: &Uri) -> Result<reqwest::Url, Refusal> {
        let HttpGrant { host, port, scheme, .. } = &self.grant;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
        let slash = if path.starts_with('/') { "" } else { "/" };
        reqwest::Url::parse(&format!("{}://{host}:{port}{slash}{path}", scheme.as_str()))
            .map_err(|_| Refusal::failed(Error::HttpRequestUriInvalid, "the path cannot be part of an address"))
    }
}

/// The requests of one instance.
pub(super) struct Requests {
    /// Where they may go.
    destinations: Arc<[Destination]>,
    /// For each destination, how many may run at the same time.
    slots: Vec<Arc<Semaphore>>,
    /// For each destination, how many were sent in this call.
    sent: Vec<usize>,
    /// When the call must have ended.
    clock: CallClock,
    /// Where refusals are told.
    voice: Arc<Voice>,
}

impl Requests {
    /// None yet.
    pub(super) fn new(destinations: &Arc<[Destination]>, voice: &Arc<Voice>, clock: &CallClock) -> Self {
        let slots = destinations.iter().map(|one| Arc::new(Semaphore::new(one.grant.concurrent))).collect();
        Self {
            destinations: Arc::clone(destinations),
            slots,
            sent: vec![0; destinations.len()],
            clock: clock.clone(),
            voice: Arc::clone(voice),
        }
    }

    /// A call of the plugin begins.
    pub(super) fn begin_call(&mut self) {
        self.sent.fill(0);
    }

    /// Whether a request may be sent, and where.
    fn admit(&mut self, request: &Request<WasiBody>) -> Result<Admitted, Refusal> {
        let at = self.find(request)?;
        let (Some(destination), Some(slots), Some(sent)) =
            (self.destinations.get(at), self.slots.get(at), self.sent.get_mut(at))
        else {
            return Err(Refusal::failed(Error::ConfigurationError, "the grant is gone"));
        };
        let grant = &destination.grant;
        if *sent >= grant.requests_per_call {
            let most = grant.requests_per_call;
            let words = format!("more than {most} requests to {} in one call (requests_per_call)", grant.host);
            return Err(Refusal::new(Error::ConnectionLimitReached, "requests", words));
        }
        let slot = Arc::clone(slots).try_acquire_owned().map_err(|_| {
            let most = grant.concurrent;
            let words = format!("more than {most} requests to {} at the same time (concurrent)", grant.host);
            Refusal::new(Error::ConnectionLimitReached, "concurrent", words)
        })?;
        *sent += 1;
        Ok(Admitted {
            destinations: Arc::clone(&self.destinations),
            at,
            slot,
            deadline: Instant::now() + time_left(grant.timeout, &self.clock),
            voice: Arc::clone(&self.voice),
        })
    }

    /// The grant that a request falls under.
    fn find(&self, request: &Request<WasiBody>) -> Result<usize, Refusal> {
        let (uri, method) = (request.uri(), request.method());
        let denied = |reason, words: String| Refusal::new(Error::HttpRequestDenied, reason, words);
        let authority = uri.authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default();
        let shown = format!("{method} {}://{authority}", uri.scheme_str().unwrap_or("https"));
        if authority.contains('@') {
            return Err(denied("host", format!("{shown}: an address with a user in it is not granted")));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = host.parse::<IpAddr>().map_or(host, |address| address.to_string());
        let scheme = if uri.scheme_str() == Some("http") { HttpScheme::Http } else { HttpScheme::Https };
        let port = uri.port_u16().unwrap_or(scheme.port());
        let of_host = || self.destinations.iter().enumerate().filter(|(_, one)| one.grant.host == host);
        let of_server = || of_host().filter(|(_, one)| (one.grant.port, one.grant.scheme) == (port, scheme));
        if of_host().next().is_none() {
            return Err(denied("host", format!("{shown}: this host is not granted")));
        }
        if of_server().next().is_none() {
            return Err(denied("port", format!("{shown}: this port or scheme of the host is not granted")));
        }
        let found = of_server().find(|(_, one)| one.grant.methods.iter().any(|granted| granted == method.as_str()));
        found.map(|(at, _)| at).ok_or_else(|| denied("method", format!("{shown}: this method is not granted")))
    }
}

/// What a request came to, and what is left to do for it.
type Answer = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let admitted = self.admit(&request);
        let voice = Arc::clone(&self.voice);
        Box::new(async move {
            let sent = match admitted {
                Ok(admitted) => Box::pin(admitted.send(request, options.unwrap_or_default())).await,
                Err(refusal) => Err(refusal),
            };
            match sent {
                Ok(response) => Ok((response, Box::new(std::future::ready(Ok(()))) as _)),
                Err(refusal) => Err(refusal.tell(&voice)),
            }
        })
    }
}

/// A request that may be sent.
struct Admitted {
    /// Where it goes.
    destinations: Arc<[Destination]>,
    /// Which of them.
    at: usize,
    /// Given back when the response was read or dropped.
    slot: OwnedSemaphorePermit,
    /// When the last byte must be there.
    deadline: Instant,
    /// Where refusals are told.
    voice: Arc<Voice>,
}

impl Admitted {
    /// Sends it and waits for the head of the response.
    async fn send(self, request: Request<WasiBody>, options: RequestOptions) -> Result<Response<WasiBody>, Refusal> {
        let Some(destination) = self.destinations.get(self.at) else {
            return Err(Refusal::failed(Error::ConfigurationError, "the grant is gone"));
        };
        let grant = &destination.grant;
        let asked =
            options.first_byte_timeout.map(|limit| limit + options.connect_timeout.unwrap_or(grant.connect_timeout));
        let head_limit = asked.map_or(self.deadline, |limit| self.deadline.min(Instant::now() + limit));
        let waiting = async {
            let (parts, body) = request.into_parts();
            let body = collect(body, grant).await?;
            let headers = end_to_end(parts.headers);
            let sent_bytes = body.len() + fields_bytes(&headers) + parts.uri.to_string().len();
            self.voice
                .leaves("http", sent_bytes)
                .map_err(|words| Refusal::new(Error::HttpRequestDenied, "tenant-egress", words))?;
            let mut sending =
                destination.client.request(parts.method.clone(), destination.url(&parts.uri)?).headers(headers);
            if !body.is_empty() || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
                sending = sending.body(body);
            }
            let response: Response<reqwest::Body> =
                sending.send().await.map_err(|error| refusal_of(error, grant))?.into();
            check_head(&response, &parts.method, grant)?;
            Ok(response)
        };
        let response = match tokio::time::timeout_at(head_limit, waiting).await {
            Ok(answered) => answered?,
            Err(_) => return Err(Refusal::late(grant)),
        };
        let (parts, body) = response.into_parts();
        let reading = Reading {
            body,
            left: grant.response_bytes,
            deadline: self.deadline,
            pause_max: options.between_bytes_timeout,
            grant: grant.clone(),
            voice: self.voice,
            _slot: self.slot,
        };
        let body = StreamBody::new(futures::stream::try_unfold(reading, Reading::next)).boxed_unsync();
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        Ok(answer)
    }
}

/// The body of a request, which is sent once it is whole: so its length is known, and what is too long is not sent in part.
async fn collect(mut body: WasiBody, grant: &HttpGrant) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::failed(error, "the request was given up"))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > grant.request_bytes {
                let most = grant.request_bytes;
                let words = format!("a request to {} of more than {most} bytes (request_bytes)", grant.host);
                return Err(Refusal::new(Error::HttpRequestBodySize(Some(most as u64)), "request-bytes", words));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The fields that are the plugin's to set. Those about the connection and the length are ours.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONTENT_LENGTH, EXPECT, TE, TRAILER] {
        headers.remove(name);
    }
    headers
}

/// Bytes of names and values.
fn fields_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Refuses a head that is too large, or that announces a body that is.
fn check_head(response: &Response<reqwest::Body>, method: &Method, grant: &HttpGrant) -> Result<(), Refusal> {
    let bytes = fields_bytes(response.headers());
    if bytes > HEADER_BYTES_MAX {
        return Err(Refusal::header_bomb(grant));
    }
    let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > grant.response_bytes as u64) && *method != Method::HEAD {
        return Err(Refusal::too_long(grant));
    }
    Ok(())
}

/// The body of a response while it is read.
struct Reading {
    /// What comes.
    body: reqwest::Body,
    /// Bytes that may still come.
    left: usize,
    /// When the last of them must be there.
    deadline: Instant,
    /// Longest pause between two, as the plugin wants it.
    pause_max: Option<Duration>,
    /// Where it comes from.
    grant: HttpGrant,
    /// Where refusals are told.
    voice: Arc<Voice>,
    /// Held until it is dropped.
    _slot: OwnedSemaphorePermit,
}

impl Reading {
    /// The next piece.
    async fn next(mut self) -> Result<Option<(Frame<Bytes>, Self)>, Error> {
        let limit = self.pause_max.map_or(self.deadline, |pause| self.deadline.min(Instant::now() + pause));
        let refusal = match tokio::time::timeout_at(limit, self.body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let is_bomb = frame.trailers_ref().is_some_and(|fields| fields_bytes(fields) > HEADER_BYTES_MAX);
                match self.left.checked_sub(bytes) {
                    _ if is_bomb => Refusal::header_bomb(&self.grant),
                    Some(left) => {
                        self.left = left;
                        return Ok(Some((frame, self)));
                    }
                    None => Refusal::too_long(&self.grant),
                }
            }
            Ok(Some(Err(error))) => refusal_of(error, &self.grant),
            Err(_) => Refusal::late(&self.grant),
        };
        Err(refusal.tell(&self.voice))
    }
}
