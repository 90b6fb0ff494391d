//! Why a request came to nothing: the error that the plugin hears, and the words that the log tells.

use std::{error::Error as StdError, io};

use wasmtime_wasi_http::Error;

use super::HEADERS_MAX;
use crate::{
    config::HttpGrant,
    plugin::{
        grants::{
            HEADER_BYTES_MAX,
            resolve::{NoAddress, Prohibited},
        },
        voice::Voice,
    },
};

/// A request that came to nothing.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What the plugin hears.
    error: Error,
    /// What it is counted as; `None` where it is no refusal of ours, but the server or the network failed.
    reason: Option<&'static str>,
    /// For people.
    words: String,
}

impl Refusal {
    /// The host refuses.
    pub(super) fn new(error: Error, reason: &'static str, words: impl Into<String>) -> Self {
        Self { error, reason: Some(reason), words: words.into() }
    }

    /// Something else failed.
    pub(super) fn failed(error: Error, words: impl Into<String>) -> Self {
        Self { error, reason: None, words: words.into() }
    }

    /// It took too long.
    pub(super) fn late(grant: &HttpGrant) -> Self {
        let words = format!(
            "{} did not answer in whole within {:?} (timeout), or before the call ends",
            grant.host, grant.timeout
        );
        Self::new(Error::HttpResponseTimeout, "timeout", words)
    }

    /// The body of the response is too long.
    pub(super) fn too_long(grant: &HttpGrant) -> Self {
        let most = grant.response_bytes;
        let words = format!("{} answered more than {most} bytes (response_bytes)", grant.host);
        Self::new(Error::HttpResponseBodySize(Some(most as u64)), "response-bytes", words)
    }

    /// The head of the response is too large.
    pub(super) fn header_bomb(grant: &HttpGrant) -> Self {
        let words =
            format!("{} answered more than {HEADERS_MAX} fields or {HEADER_BYTES_MAX} bytes of them", grant.host);
        Self::new(Error::HttpResponseHeaderSectionSize(u32::try_from(HEADER_BYTES_MAX).ok()), "response-headers", words)
    }

    /// Logs and counts it; what is left is for the plugin.
    pub(super) fn tell(self, voice: &Voice) -> Error {
        match self.reason {
            Some(reason) => voice.refused("http", reason, &self.words),
            None => voice.failed("http", &self.words),
        }
        self.error
    }
}

/// What an error of the client means.
pub(super) fn refusal_of(error: reqwest::Error, grant: &HttpGrant) -> Refusal {
    // The address is the plugin's, and as long as it likes.
    let error = error.without_url();
    let words = || format!("{}: {}", grant.host, crate::error::full_message(&error));
    if let Some(prohibited) = cause::<Prohibited>(&error) {
        return Refusal::new(Error::DestinationIpProhibited, "address", format!("{}: {prohibited}", grant.host));
    }
    if cause::<NoAddress>(&error).is_some() {
        return Refusal::failed(Error::DnsError { rcode: None, info_code: None }, words());
    }
    let hyper = cause::<hyper::Error>(&error);
    if hyper.is_some_and(hyper::Error::is_parse_too_large) {
        return Refusal::header_bomb(grant);
    }
    let tls = cause::<rustls::Error>(&error);
    let is_data = cause::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
    if error.is_body() && tls.is_none() && is_data {
        // What hyper says of trailers, and of what stands beside the lengths of chunks, beyond its limits.
        return Refusal::header_bomb(grant);
    }
    let known = if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
        Error::TlsCertificateError
    } else if tls.is_some() {
        Error::TlsProtocolError
    } else if error.is_connect() && error.is_timeout() {
        let words = format!("{}: no connection within {:?} (connect_timeout)", grant.host, grant.connect_timeout);
        return Refusal::new(Error::ConnectionTimeout, "timeout", words);
    } else if error.is_connect() {
        match cause::<io::Error>(&error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
            Some(io::ErrorKind::TimedOut) => Error::ConnectionTimeout,
            _ => Error::DestinationUnavailable,
        }
    } else if hyper.is_some_and(hyper::Error::is_incomplete_message) {
        Error::HttpResponseIncomplete
    } else {
        Error::HttpProtocolError
    };
    Refusal::failed(known, words())
}

/// The first cause of a type, also within an I/O error, which hides what it holds from `source`.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}
