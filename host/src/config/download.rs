//! Where a component comes from that is not a file of this machine: an address, and how it is asked for. Addresses are read here,
//! without looking anything up.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::{PipelineConfig, PluginConfig, PrivateAddresses, Secret, value::expected};

/// A component that is downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// What.
    pub location: Location,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates that are believed besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be connected to that are not of the public internet; also where a server redirects to.
    pub private: PrivateAddresses,
    /// All of it, from the first look-up to the last byte.
    pub timeout: Duration,
}

/// What is downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, by its `https://` address.
    File(Url),
    /// An artifact of a registry.
    Artifact(Artifact),
}

/// An artifact of an OCI registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The registry's name or address, with a port or without.
    pub registry: String,
    /// Its path there.
    pub repository: String,
    /// The tag; what it means may change.
    pub tag: Option<String>,
    /// SHA-256 of its manifest.
    pub digest: Option<[u8; 32]>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Anybody.
    #[default]
    None,
    /// A user; a registry may give a token for it.
    User(String, Secret),
    /// A token.
    Token(Secret),
}

impl Location {
    /// `https://host/path`, `oci://registry/repository@sha256:…` or `oci://registry/repository:tag`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("oci", rest)) => Artifact::parse(rest).map(Self::Artifact),
            Some(("https", _)) => {
                let url = Url::parse(text).map_err(|error| format!("{text:?} is no address: {error}"))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err("has a user in it; write `download: {username: ..., password: ...}`".to_owned());
                }
                if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() {
                    return Err(expected("an address such as https://example.com/plugin.wasm", text));
                }
                Ok(Self::File(url))
            }
            Some(("http", _)) => {
                Err("is not encrypted: anybody on the way could put another plugin in its place; use \
                                      https://, or download it and name it under `path`"
                    .to_owned())
            }
            _ => Err(expected("https://host/plugin.wasm or oci://registry/repository@sha256:...", text)),
        }
    }

    /// Whether it names what comes, so that nothing else can.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        matches!(self, Self::Artifact(Artifact { digest: Some(_), .. }))
    }

    /// What a plugin is called where nobody says.
    pub(super) fn stem(&self) -> Option<&str> {
        let last = match self {
            Self::File(url) => url.path().rsplit('/').next(),
            Self::Artifact(artifact) => artifact.repository.rsplit('/').next(),
        };
        last.map(|name| name.strip_suffix(".wasm").unwrap_or(name)).filter(|name| !name.is_empty())
    }
}

impl Artifact {
    /// What stands behind `oci://`.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || expected("oci://registry/repository@sha256:<64 digits> or oci://registry/repository:tag", text);
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digits = digest.strip_prefix("sha256:").ok_or_else(wrong)?;
                (name, Some(sha256(digits)?))
            }
        };
        let (registry, path) = name.split_once('/').ok_or_else(wrong)?;
        let (repository, tag) = match path.split_once(':') {
            None => (path, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_part = |part: &str| {
            part.bytes().next().is_some_and(is_lower)
                && part.bytes().all(|byte| is_lower(byte) || matches!(byte, b'.' | b'_' | b'-'))
        };
        let is_tag = |tag: &str| {
            (1..=128).contains(&tag.len())
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        if !repository.split('/').all(is_part) {
            return Err(format!("{repository:?} is no repository: parts of small letters, digits, `.`, `_`, `-`"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(format!("{:?} is no tag", tag.unwrap_or_default()));
        }
        if tag.is_none() && digest.is_none() {
            return Err(format!("names no version: add @sha256:... of its manifest, or a tag, to oci://{text}"));
        }
        let host = Url::parse(&format!("https://{registry}/")).map_err(|_| wrong())?;
        if host.host_str().is_none_or(str::is_empty) || !host.username().is_empty() || host.path() != "/" {
            return Err(wrong());
        }
        Ok(Self {
            registry: registry.to_ascii_lowercase(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(url) => url.fmt(formatter),
            Self::Artifact(Artifact { registry, repository, tag, digest }) => {
                write!(formatter, "oci://{registry}/{repository}")?;
                if let Some(tag) = tag {
                    write!(formatter, ":{tag}")?;
                }
                if let Some(digest) = digest {
                    formatter.write_str("@sha256:")?;
                    digest.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
                }
                Ok(())
            }
        }
    }
}

impl PluginConfig {
    /// Whether only one component can be loaded by it: a digest is named, of the component or of the artifact that it comes in.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.sha256.is_some() || self.download.as_ref().is_some_and(|download| download.location.is_pinned())
    }
}

impl PipelineConfig {
    /// Names of plugins that may be another one tomorrow. A tenant who is not trusted may have none.
    #[must_use]
    pub fn unpinned_plugins(&self) -> Vec<&str> {
        self.plugins.iter().filter(|plugin| !plugin.is_pinned()).map(|plugin| &*plugin.name).collect()
    }

    /// Names of plugins that are downloaded from private addresses where the server is there, or redirects there. A tenant who is
    /// not trusted may have none, since the host would ask its own network for them.
    #[must_use]
    pub fn private_downloads(&self) -> Vec<&str> {
        let is_private = |plugin: &&std::sync::Arc<PluginConfig>| {
            plugin.download.as_ref().is_some_and(|download| download.private != PrivateAddresses::Refused)
        };
        self.plugins.iter().filter(is_private).map(|plugin| &*plugin.name).collect()
    }
}

/// 64 hexadecimal digits.
pub(crate) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || expected("64 hexadecimal digits", text);
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = text.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        let digest = "ab".repeat(32);
        for (text, stem, is_pinned) in [
            ("https://example.com/a/keep.wasm?version=3", "keep", false),
            (&format!("oci://registry.example.com:5000/team/keep-eu@sha256:{digest}"), "keep-eu", true),
            (&format!("oci://ghcr.io/keep:1.2.0@sha256:{digest}"), "keep", true),
            ("oci://localhost:5000/keep:latest", "keep", false),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!((location.stem(), location.is_pinned()), (Some(stem), is_pinned));
        }
    }

    #[test]
    fn other_addresses_are_refused_in_words() {
        for (text, words) in [
            (
                "http://example.com/keep.wasm",
                "is not encrypted: anybody on the way could put another plugin in its place",
            ),
            (
                "https://me:secret@example.com/keep.wasm",
                "has a user in it; write `download: {username: ..., password: ...}`",
            ),
            (
                "ftp://example.com/keep.wasm",
                "expected https://host/plugin.wasm or oci://registry/repository@sha256:...",
            ),
            ("keep.wasm", "expected https://host/plugin.wasm or oci://"),
            ("oci://ghcr.io/team/keep", "names no version: add @sha256:... of its manifest, or a tag"),
            ("oci://ghcr.io/team/keep@sha256:12", "expected 64 hexadecimal digits"),
            ("oci://ghcr.io/team/keep@md5:12", "expected oci://registry/repository@sha256:<64 digits>"),
            ("oci://ghcr.io/Team/keep:1", "is no repository: parts of small letters"),
            ("oci://ghcr.io/../keep:1", "is no repository"),
            ("oci://ghcr.io/keep:a/b", "is no tag"),
            ("oci://keep:1", "expected oci://registry/repository"),
            ("oci://me@host/keep:1", "expected oci://registry/repository"),
        ] {
            let refusal = Location::parse(text).unwrap_err();
            assert!(refusal.contains(words), "{text}: {refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }
}
