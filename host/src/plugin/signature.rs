//! Whether a component is what somebody signed, by minisign's Ed25519 signatures: a key and a signature of one line each, made by
//! a small program that everybody can have, without certificates, servers or a clock.
//!
//! Comes in: the bytes of a component, who has to have signed it. Goes out: nothing, or words.

use std::{fs::File, io::Read as _};

use minisign_verify::{PublicKey, Signature as Signed};

use crate::config::Signature;

/// Four lines, of which two are comments.
const SIGNATURE_BYTES_MAX: u64 = 8 << 10;

/// Refuses bytes that were not signed with the key. Signatures of the bytes themselves and not of their hash are refused:
/// minisign makes those only where it is asked for old ones (`-l`).
pub(super) fn check(component: &[u8], signature: &Signature) -> Result<(), String> {
    let Signature { public_key, path } = signature;
    let shown = path.display();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SIGNATURE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("has no signature that can be read: {shown}: {error}; `minisign -S` makes it"))?;
    let key = PublicKey::from_base64(public_key).map_err(|error| format!("has no key to be checked by: {error}"))?;
    let signed =
        Signed::decode(&text).map_err(|error| format!("has no signature: {shown} is not one of minisign: {error}"))?;
    key.verify(component, &signed, false)
        .map_err(|error| format!("is not what was signed: {shown}, public key {public_key}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Signed the plugin of 0.1.0 that is kept for ever, and nothing else.
    const KEY: &str = include_str!("signature/key.txt");

    /// A file beside the tests.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugin/signature").join(name)
    }

    /// The plugin that is signed.
    fn component() -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/golden/0.1.0/plugin.wasm")).unwrap()
    }

    #[test]
    fn only_what_was_signed_by_the_key_is_taken() {
        let by = |name: &str| Signature { public_key: KEY.trim().to_owned(), path: file(name) };
        let mut component = component();
        assert_eq!(check(&component, &by("plugin.wasm.minisig")), Ok(()));
        let other = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let stranger = Signature { public_key: other.to_owned(), ..by("plugin.wasm.minisig") };
        assert!(check(&component, &stranger).unwrap_err().contains("is not what was signed"));
        let last = component.len() - 1;
        component[last] ^= 1;
        assert!(check(&component, &by("plugin.wasm.minisig")).unwrap_err().contains("is not what was signed"));
        assert!(check(&component, &by("key.txt")).unwrap_err().contains("is not one of minisign"));
        assert!(check(&component, &by("none")).unwrap_err().contains("No such file"));
    }
}
