//! An artifact of an OCI registry, as the CNCF's guidance lays out WebAssembly: a manifest with one layer of `application/wasm`.
//!
//! The registry's interface is three requests (a manifest, a blob, a token), so it needs no library that would bring a client, a
//! resolver and a way to follow redirects of its own.

use serde_json::Value;
use url::Url;

use super::{
    Blobs, CompileFault, check_digest,
    client::{Client, Most, Refusal, secret},
    component,
};
use crate::{
    config::{Artifact, Credentials},
    plugin::cache::hex,
};

/// A manifest: a few hundred bytes, and what people add.
const MANIFEST_MOST: Most = Most { bytes: 4 << 20, limit: None };
/// A registry's token, in JSON.
const TOKEN_MOST: Most = Most { bytes: 64 << 10, limit: None };
/// What a manifest is.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a component is.
const COMPONENT: &str = "application/wasm";

/// Who asks, as the registry wants to hear it.
type Authorization = Option<reqwest::header::HeaderValue>;

/// The component of an artifact.
pub(super) async fn pull(
    client: &Client,
    artifact: &Artifact,
    bytes_max: usize,
    blobs: Option<&Blobs>,
) -> Result<Vec<u8>, CompileFault> {
    let mut session = Session { client, artifact, authorization: None };
    let kept = artifact.digest.and_then(|digest| blobs?.load(&digest, MANIFEST_MOST.bytes));
    let is_kept = kept.is_some();
    let manifest = match kept {
        Some(manifest) => manifest,
        None => session.manifest().await?,
    };
    let (digest, size) = layer(&manifest, artifact)?;
    if size > bytes_max as u64 {
        let words = format!("has {size} bytes, which is more than {bytes_max} (limits.component_bytes)");
        return Err(CompileFault { words, limit: Some("component_bytes"), lasts: false });
    }
    if let Some(bytes) = blobs.and_then(|blobs| blobs.load(&digest, bytes_max)) {
        return Ok(bytes);
    }
    let bytes = session.get(&format!("blobs/sha256:{}", hex(&digest)), "*/*", component(bytes_max)).await?;
    check_digest("component", &bytes, &digest)?;
    if let (Some(blobs), Some(own)) = (blobs, &artifact.digest) {
        blobs.store(&digest, &bytes);
        if !is_kept {
            blobs.store(own, &manifest);
        }
    }
    Ok(bytes)
}

/// Requests to one repository.
struct Session<'a> {
    /// Sends them.
    client: &'a Client,
    /// Of what.
    artifact: &'a Artifact,
    /// Once the registry has asked.
    authorization: Authorization,
}

impl Session<'_> {
    /// The manifest, of the digest that was asked for.
    async fn manifest(&mut self) -> Result<Vec<u8>, CompileFault> {
        let Artifact { tag, digest, .. } = self.artifact;
        let reference = match (digest, tag) {
            (Some(digest), _) => format!("sha256:{}", hex(digest)),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let bytes = self.get(&format!("manifests/{reference}"), MANIFEST, MANIFEST_MOST).await?;
        if let Some(wanted) = digest {
            check_digest("manifest", &bytes, wanted)?;
        } else {
            use sha2::{Digest as _, Sha256};
            let found = hex(&Sha256::digest(&bytes));
            tracing::info!("oci://{}/{} is @sha256:{found} now", self.artifact.registry, self.artifact.repository);
        }
        Ok(bytes)
    }

    /// Asks for a part of the repository, and says who we are where the registry asks.
    async fn get(&mut self, part: &str, accept: &str, most: Most) -> Result<Vec<u8>, CompileFault> {
        let registry = match self.artifact.registry.as_str() {
            // What everybody calls it is the address of its pages.
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let address = format!("{}://{registry}/v2/{}/{part}", self.client.scheme(), self.artifact.repository);
        let url = Url::parse(&address).map_err(|error| format!("cannot be downloaded: {address}: {error}"))?;
        let mut has_asked = false;
        loop {
            match self.client.ask(&url, accept, self.authorization.as_ref(), most).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Words(fault)) => return Err(fault),
                Err(Refusal::Unauthorised(_)) if has_asked => return Err(self.client.unauthorised(&url).into()),
                Err(Refusal::Unauthorised(challenge)) => {
                    has_asked = true;
                    self.authorization = self.answer(&url, &challenge).await?;
                }
            }
        }
    }

    /// Who we are, as a registry's challenge wants to hear it.
    async fn answer(&self, url: &Url, challenge: &str) -> Result<Authorization, CompileFault> {
        let is_bearer = challenge.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("bearer "));
        if !is_bearer || matches!(self.client.credentials(), Credentials::Token(_)) {
            let authorization = self.client.authorization();
            return if authorization.is_some() { Ok(authorization) } else { Err(self.client.unauthorised(url).into()) };
        }
        let wrong = |words: &str| format!("cannot be downloaded: {} {words}", url.host_str().unwrap_or_default());
        let realm = parameter(challenge, "realm").and_then(|realm| Url::parse(&realm).ok());
        let mut realm = realm.ok_or_else(|| wrong("asks for a token and does not say where they are given"))?;
        let scope = format!("repository:{}:pull", self.artifact.repository);
        for (key, value) in [("service", parameter(challenge, "service")), ("scope", Some(scope))] {
            if let Some(value) = value {
                realm.query_pairs_mut().append_pair(key, &value);
            }
        }
        let authorization = self.client.authorization();
        let answer = self.client.ask(&realm, "application/json", authorization.as_ref(), TOKEN_MOST).await;
        let answer = answer.map_err(|refusal| match refusal {
            Refusal::Words(fault) => fault,
            Refusal::Unauthorised(_) => self.client.unauthorised(&realm).into(),
        })?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let token = ["token", "access_token"].into_iter().find_map(|key| answer.get(key)?.as_str());
        let header = token.and_then(|token| secret(&format!("Bearer {token}")));
        header.map(Some).ok_or_else(|| wrong("names a server of tokens that gives none").into())
    }
}

/// One parameter of a challenge such as `Bearer realm="https://...",service="..."`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge.split_once(' ')?.1;
    while let Some((key, behind)) = rest.split_once("=\"") {
        let (value, next) = behind.split_once('"')?;
        if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

/// Digest and size of the component in a manifest.
fn layer(manifest: &[u8], artifact: &Artifact) -> Result<([u8; 32], u64), String> {
    let wrong = |words: &str| {
        format!(
            "is no plugin: {words}; expected an artifact with one layer of {COMPONENT}, as `wkg oci push` and `oras push \
             {}/{}:TAG plugin.wasm:{COMPONENT}` make",
            artifact.registry, artifact.repository
        )
    };
    let value: Value = serde_json::from_slice(manifest).map_err(|_| wrong("its manifest is not JSON"))?;
    let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or(MANIFEST);
    if media_type != MANIFEST {
        return Err(wrong(&format!("its manifest is {media_type}")));
    }
    let layers = value.get("layers").and_then(Value::as_array).ok_or_else(|| wrong("its manifest has no layers"))?;
    let [layer] = layers.as_slice() else {
        return Err(wrong(&format!("its manifest has {} layers", layers.len())));
    };
    let text = |key: &str| layer.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("mediaType") != COMPONENT {
        return Err(wrong(&format!("its layer is {}", text("mediaType"))));
    }
    let digest = text("digest").strip_prefix("sha256:").and_then(|digits| crate::config::sha256(digits).ok());
    let digest = digest.ok_or_else(|| wrong("its layer has no SHA-256"))?;
    let size = layer.get("size").and_then(Value::as_u64).ok_or_else(|| wrong("its layer has no size"))?;
    Ok((digest, size))
}

#[cfg(test)]
mod unit {
    use serde_json::json;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = r#"Bearer realm="https://auth.example.com/token",service="registry.example.com", scope="repository:a:pull,push""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example.com/token"));
        assert_eq!(parameter(challenge, "service").as_deref(), Some("registry.example.com"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("Basic", "realm"), None);
    }

    #[test]
    fn only_manifests_with_one_component_are_taken() {
        let artifact = Artifact {
            registry: "r".to_owned(),
            repository: "keep".to_owned(),
            tag: Some("1".to_owned()),
            digest: None,
        };
        let digest = format!("sha256:{}", "ab".repeat(32));
        let good = json!({"mediaType": COMPONENT, "digest": digest, "size": 7});
        let manifest = |value: Value| layer(value.to_string().as_bytes(), &artifact);
        assert_eq!(manifest(json!({"mediaType": MANIFEST, "layers": [good]})), Ok(([0xab; 32], 7)));
        for (value, words) in [
            (json!(7), "its manifest has no layers"),
            (
                json!({"mediaType": "application/vnd.oci.image.index.v1+json"}),
                "its manifest is application/vnd.oci.image.index",
            ),
            (json!({"layers": [good, good]}), "its manifest has 2 layers"),
            (
                json!({"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}]}),
                "its layer is application/vnd.oci",
            ),
            (
                json!({"layers": [{"mediaType": COMPONENT, "digest": "sha512:12", "size": 1}]}),
                "its layer has no SHA-256",
            ),
            (json!({"layers": [{"mediaType": COMPONENT, "digest": digest, "size": -1}]}), "its layer has no size"),
        ] {
            let refusal = manifest(value).unwrap_err();
            assert!(refusal.contains(words) && refusal.contains("oras push"), "{refusal}");
        }
        assert!(layer(b"<html>", &artifact).unwrap_err().contains("its manifest is not JSON"));
    }
}
