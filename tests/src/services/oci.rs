//! A real registry of OCI artifacts: Debian's `docker-registry`, encrypted, with one user.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{certificates::Authority, folder::TestFolder, free_port, process::Process, runtime};
use crate::wait::{self, Look};

/// A small program of one file.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Who may read and write.
pub const USER: &str = "tester";
/// Their password.
pub const PASSWORD: &str = "geheim";
/// Both, as the registry keeps them.
const HTPASSWD: &str = "tester:$2b$04$04FY8xgCXwfBdpSa5w64ku6KQbGuQZ4pqqXBk/k7Zi.gNpd6qaCCO\n";

/// A registry of ours.
#[derive(Debug)]
pub struct OciRegistry {
    /// Its certificates, its artifacts and its log.
    folder: TestFolder,
    /// Where it listens.
    port: u16,
    /// Ends with this value.
    process: Process,
    /// Who pushes.
    client: reqwest::Client,
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// `sha256:...` of the manifest.
    pub manifest: String,
    /// `sha256:...` of the layer.
    pub layer: String,
}

impl OciRegistry {
    /// Starts one and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("oci")?;
        let authority = Authority::new(folder.path(), "ca")?;
        authority.sign("server", 2)?;
        let port = free_port()?;
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD)?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": at("artifacts")}},
            "http": {
                "addr": format!("127.0.0.1:{port}"),
                "secret": "of a test",
                "tls": {"certificate": at("server.crt"), "key": at("server.key")},
            },
            "auth": {"htpasswd": {"realm": "test", "path": at("htpasswd")}},
        });
        // JSON is YAML, too.
        std::fs::write(folder.path().join("config.yml"), config.to_string())?;
        let mut command = Command::new("docker-registry");
        command.args(["serve", "config.yml"]).current_dir(folder.path());
        let log = folder.path().join("registry.log");
        let mut process = Process::start_with_input("docker-registry", command, &log, Stdio::null())?;
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(folder.path().join("ca.crt"))?)?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build()?;
        wait::until("the registry of artifacts to listen", START_LIMIT, || {
            process.ensure_running()?;
            Ok(match std::net::TcpStream::connect(("127.0.0.1", port)) {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })?;
        Ok(Self { folder, port, process, client })
    }

    /// Host and port, as they stand behind `oci://`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().map(drop)
    }

    /// Pushes a file as an artifact of one layer, under a tag.
    pub fn push(&self, repository: &str, tag: &str, layer: &Path, media_type: &str) -> anyhow::Result<Pushed> {
        let layer = std::fs::read(layer).with_context(|| layer.display().to_string())?;
        let size = layer.len();
        runtime()?.block_on(async {
            let digest = self.push_blob(repository, layer).await?;
            let config = self.push_blob(repository, b"{}".to_vec()).await?;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": config, "size": 2},
                "layers": [{"mediaType": media_type, "digest": digest, "size": size}],
            });
            let url = format!("https://{}/v2/{repository}/manifests/{tag}", self.address());
            let request = self.client.put(url).basic_auth(USER, Some(PASSWORD)).body(manifest.to_string());
            let request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
            let manifest = digest_of(request.send().await?).await?;
            Ok(Pushed { manifest, layer: digest })
        })
    }

    /// Pushes bytes; their digest, as the registry reckons it.
    async fn push_blob(&self, repository: &str, bytes: Vec<u8>) -> anyhow::Result<String> {
        let url = format!("https://{}/v2/{repository}/blobs/uploads/", self.address());
        let answer = self.client.post(url).basic_auth(USER, Some(PASSWORD)).send().await?;
        let location = answer.headers().get("location").context("no place to upload to")?.to_str()?.to_owned();
        // In one piece by PATCH, so that the registry reckons the digest that the last request has to name.
        let request = self.client.patch(location).basic_auth(USER, Some(PASSWORD)).body(bytes.clone());
        let answer = request.header("content-type", "application/octet-stream").send().await?;
        let location = answer.headers().get("location").context("no place to end at")?.to_str()?.to_owned();
        let digest = sha256(&bytes)?;
        let request = self.client.put(format!("{location}&digest={digest}")).basic_auth(USER, Some(PASSWORD));
        digest_of(request.send().await?).await
    }
}

/// The digest in a registry's answer.
async fn digest_of(answer: reqwest::Response) -> anyhow::Result<String> {
    let status = answer.status();
    let digest = answer.headers().get("docker-content-digest").cloned();
    ensure!(status == 201, "the registry answers {status}: {}", answer.text().await?);
    Ok(digest.context("no digest")?.to_str()?.to_owned())
}

/// `sha256:...` of bytes, by the system's command.
fn sha256(bytes: &[u8]) -> anyhow::Result<String> {
    use std::io::Write as _;

    let mut command = Command::new("sha256sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(bytes)?;
    let output = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(format!("sha256:{}", output.split(' ').next().unwrap_or_default()))
}
