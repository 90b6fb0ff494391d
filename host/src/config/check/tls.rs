//! TLS of clients of ours: of Redis, and of a schema registry.

use std::path::{Path, PathBuf};

use crate::config::{ClientTls, reader::Section, value::boolean};

/// TLS, where it is asked for.
pub(super) fn tls(section: &Section<'_>, folder: &Path, is_in_url: bool) -> Option<ClientTls> {
    // `tls: true` is what people write.
    match section.scalar("tls").map(boolean) {
        None => {}
        Some(Ok(true)) => return Some(ClientTls::default()),
        Some(Ok(false)) => {
            if is_in_url {
                section.fault("tls", "says no, and `url` says rediss://; leave one out");
            }
            return None;
        }
        Some(Err(message)) => {
            section.fault("tls", message + ", or keys and values such as {ca_file: ca.pem}");
            return None;
        }
    }
    let tls = section.section("tls");
    if !tls.is_there() {
        return is_in_url.then(ClientTls::default);
    }
    let ca_file = file(&tls, folder, "ca_file", "a file of certificates in PEM");
    let cert_file = file(&tls, folder, "cert_file", "a file of certificates in PEM");
    let key_file = file(&tls, folder, "key_file", "a file with a key in PEM");
    let identity = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            tls.fault("cert_file", "is there without `key_file`; a certificate needs its key");
            None
        }
        (None, Some(_)) => {
            tls.fault("key_file", "is there without `cert_file`; a key needs its certificate");
            None
        }
    };
    if tls.has("insecure") {
        tls.fault("insecure", "certificates are always checked; `ca_file` says which are believed");
        let _ = tls.node("insecure");
    }
    tls.finish();
    Some(ClientTls { ca_file, identity })
}

/// A file that must be there.
pub(super) fn file(section: &Section<'_>, folder: &Path, key: &'static str, what: &str) -> Option<PathBuf> {
    let text = section.text(key).filter(|text| !text.is_empty())?;
    let place = section.node(key).map_or_else(|| section.place(), |node| &node.place);
    let path = Section::resolve(place, folder, &text);
    if !path.is_file() {
        section.fault(key, format!("expected {what}, found nothing such at {}", path.display()));
    }
    Some(path)
}
