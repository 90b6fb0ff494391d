//! `plugins[].signature`: who has to have signed a component.

use std::path::{Path, PathBuf};

use minisign_verify::PublicKey;

use super::tls;
use crate::config::{Signature, reader::Section, value::expected};

/// What minisign adds to the name of what it signs.
const SUFFIX: &str = ".minisig";

/// Who has to have signed the component in a file, or a downloaded one, whose signature has no place of its own.
pub(super) fn read(section: Section<'_>, folder: &Path, component: Option<&Path>) -> Option<Signature> {
    if !section.is_there() {
        return None;
    }
    let key = |text: &str| match PublicKey::from_base64(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(expected("a public key of minisign, the line of letters and digits in minisign.pub", text)),
    };
    if !section.has("public_key") {
        section.fault("public_key", "is missing: the public key of who signs, as `minisign -G` prints it");
    }
    let public_key = section.get("public_key", key);
    let beside = component.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(SUFFIX);
        PathBuf::from(name)
    });
    let path = if section.has("path") {
        tls::file(&section, folder, "path", "a signature of minisign")
    } else {
        if beside.is_none() {
            section.fault("path", "is missing: the signature's file; a plugin that is downloaded has none beside it");
        }
        beside
    };
    section.finish();
    Some(Signature { public_key: public_key?, path: path? })
}
