//! One request after the other, and where they may go.

use std::{fs, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE},
};
use url::{Host, Url};

use super::{CompileFault, Lookup, PAUSE, TRIES, resolve::Checked, resolve::Prohibited};
use crate::{
    config::{Credentials, Download, PrivateAddresses},
    error::full_message,
};

/// Redirects of one request: a registry sends to a store of objects, and that perhaps to another place.
const REDIRECTS_MAX: usize = 5;
/// How long a connection may take: a server that is there answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent between two pieces.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks servers.
pub(super) struct Client {
    /// Connections.
    http: reqwest::Client,
    /// Judges addresses that are no names.
    private: PrivateAddresses,
    /// Who asks.
    credentials: Credentials,
    /// `https`, but for tests.
    scheme: &'static str,
}

/// How large an answer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Bytes.
    pub(super) bytes: usize,
    /// The key below `limits` that says so, where it is one.
    pub(super) limit: Option<&'static str>,
}

/// Why there is no answer.
pub(super) enum Refusal {
    /// The server asks who we are, with this challenge.
    Unauthorised(String),
    /// In words.
    Words(CompileFault),
}

impl From<String> for Refusal {
    fn from(words: String) -> Self {
        Self::Words(words.into())
    }
}

impl Client {
    /// Reads certificates; connects to nothing yet.
    pub(super) fn new(download: &Download, scheme: &'static str, lookup: Arc<dyn Lookup>) -> Result<Self, String> {
        let resolver = Checked { lookup, private: download.private.clone() };
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("fs-data-sink/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .dns_resolver(Arc::new(resolver));
        if let Some(path) = &download.ca_file {
            let wrong = |error: String| format!("cannot be downloaded: {} {error}", path.display());
            let text = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
            let found = reqwest::Certificate::from_pem_bundle(&text)
                .map_err(|error| wrong(format!("holds no certificates in PEM: {error}")))?;
            builder = builder.tls_certs_merge(found);
        }
        let http = builder.build().map_err(|error| format!("cannot be downloaded: {error}"))?;
        let (private, credentials) = (download.private.clone(), download.credentials.clone());
        Ok(Self { http, private, credentials, scheme })
    }

    /// Who asks.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// How servers are asked.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Asks with the credentials as they are.
    pub(super) async fn get(&self, url: &Url, accept: &str, most: Most) -> Result<Vec<u8>, CompileFault> {
        let authorization = self.authorization();
        self.ask(url, accept, authorization.as_ref(), most).await.map_err(|refusal| match refusal {
            Refusal::Words(fault) => fault,
            Refusal::Unauthorised(_) => self.unauthorised(url).into(),
        })
    }

    /// The credentials as they are.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        use base64::{Engine as _, prelude::BASE64_STANDARD};

        let text = match &self.credentials {
            Credentials::None => return None,
            Credentials::Token(token) => format!("Bearer {}", token.reveal()),
            Credentials::User(name, password) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", password.reveal())))
            }
        };
        secret(&text)
    }

    /// The words for a server that does not take who we are.
    pub(super) fn unauthorised(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        match self.credentials {
            Credentials::None => format!(
                "cannot be downloaded: {host} wants to know who asks; add `download: {{username: ..., password: ...}}` or \
                 `download: {{token: ...}}`"
            ),
            _ => format!("cannot be downloaded: {host} does not let in who `download` says that we are"),
        }
    }

    /// Asks, again where that may help, and follows redirects.
    pub(super) async fn ask(
        &self,
        url: &Url,
        accept: &str,
        authorization: Option<&HeaderValue>,
        most: Most,
    ) -> Result<Vec<u8>, Refusal> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            match self.try_once(url, accept, authorization, most).await {
                Err((_, true)) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err((refusal, _)) => return Err(refusal),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    /// One try; a failure says whether another one may help.
    async fn try_once(
        &self,
        url: &Url,
        accept: &str,
        mut authorization: Option<&HeaderValue>,
        most: Most,
    ) -> Result<Vec<u8>, (Refusal, bool)> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.judge(&at).map_err(|words| (words.into(), false))?;
            let mut request = self.http.get(at.clone()).header(ACCEPT, accept);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| failure(&at, error))?;
            let status = response.status();
            if !status.is_redirection() {
                return finish(&at, response, most).await;
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(next) = to.and_then(|to| at.join(to).ok()) else {
                return Err((format!("cannot be downloaded: {} redirects to nowhere", shown(&at)).into(), false));
            };
            if next.origin() != at.origin() {
                // Who asks is for the server that was named.
                authorization = None;
            }
            at = next;
        }
        Err((format!("cannot be downloaded: {} redirects more than {REDIRECTS_MAX} times", shown(url)).into(), false))
    }

    /// Refuses what is not encrypted, and addresses that may not be connected to. Names are judged when they are looked up.
    fn judge(&self, url: &Url) -> Result<(), String> {
        if url.scheme() != self.scheme {
            return Err(format!("cannot be downloaded: it leads to {}, which is not {}", shown(url), self.scheme));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            _ => return Ok(()),
        };
        if self.private.allows(address) { Ok(()) } else { Err(prohibited(url, &Prohibited(address))) }
    }
}

/// A header that is not shown.
pub(super) fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An address without what may be secret in it: stores of objects sign addresses in their query.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    // Only addresses that have no host refuse it.
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.to_string()
}

/// The words for an address that may not be connected to.
fn prohibited(url: &Url, why: &Prohibited) -> String {
    format!("cannot be downloaded from {}: {why}; add `download: {{allow_private: true}}` if it is meant", shown(url))
}

/// The words for a request without an answer.
fn failure(url: &Url, error: reqwest::Error) -> (Refusal, bool) {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(why) = inner.downcast_ref::<Prohibited>() {
            return (prohibited(url, why).into(), false);
        }
        cause = inner.source();
    }
    let words = format!("cannot be downloaded: {} does not answer: {}", shown(url), full_message(&error.without_url()));
    (words.into(), true)
}

/// Reads an answer.
async fn finish(url: &Url, mut response: Response, most: Most) -> Result<Vec<u8>, (Refusal, bool)> {
    let words = |words: &str| (Refusal::from(format!("cannot be downloaded: {} {words}", shown(url))), false);
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            return Err((Refusal::Unauthorised(challenge.unwrap_or_default().to_owned()), false));
        }
        StatusCode::FORBIDDEN => return Err(words("is forbidden for who `download` says that we are (status 403)")),
        StatusCode::NOT_FOUND => return Err(words("does not exist (status 404)")),
        status => {
            let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            return Err((words(&format!("answers with status {}", status.as_u16())).0, may_pass));
        }
    }
    let too_large = || {
        let key = most.limit.map(|key| format!(" (limits.{key})")).unwrap_or_default();
        let words = format!("cannot be downloaded: {} has more than {} bytes{key}", shown(url), most.bytes);
        (Refusal::Words(CompileFault { words, limit: most.limit, lasts: false }), false)
    };
    if response.content_length().is_some_and(|length| length > most.bytes as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(url, error))? {
        if bytes.len() + piece.len() > most.bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
