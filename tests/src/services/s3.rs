//! A real S3 server (SeaweedFS), and what tests ask of it.

use std::{
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore as _, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::MultipartStore as _,
    path::Path,
    signer::{SignedUrlOptions, Signer as _},
};
use reqwest::Method;

use super::{download, folder::TestFolder, free_port, process::Process, runtime};
use crate::wait::{self, Look};

/// A start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// One request to a server that runs.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);

/// A bucket of an S3 server: ours, or one that the environment names.
#[derive(Debug)]
pub struct S3 {
    /// How to get there.
    access: S3Access,
    /// Asks it directly, whatever is between it and the program.
    client: Arc<AmazonS3>,
    /// Ours; `None` where it was given.
    server: Option<Mutex<(Process, TestFolder)>>,
}

/// What a client has to know.
#[derive(Clone, Debug)]
pub struct S3Access {
    /// `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// A bucket that is there.
    pub bucket: String,
    /// Region.
    pub region: String,
    /// Key id.
    pub key_id: String,
    /// Its secret.
    pub secret: String,
}

impl S3 {
    /// The server that `S3_ENDPOINT_URL` names, else a new one.
    pub fn given_or_started() -> anyhow::Result<Self> {
        match std::env::var("S3_ENDPOINT_URL") {
            Ok(endpoint) if !endpoint.trim().is_empty() => Self::given(endpoint),
            _ => Self::start(),
        }
    }

    /// The server at an endpoint, with the usual variables.
    fn given(endpoint: String) -> anyhow::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("S3_ENDPOINT_URL is set and {name} is not"));
        let access = S3Access {
            endpoint,
            bucket: variable("S3_BUCKET")?,
            region: std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
            key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret: variable("AWS_SECRET_ACCESS_KEY")?,
        };
        Self::at(access)
    }

    /// A server that runs already.
    pub fn at(access: S3Access) -> anyhow::Result<Self> {
        let client = access.client()?;
        Ok(Self { access, client, server: None })
    }

    /// Starts a server with one bucket, and waits until an object can be put.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("s3")?;
        let port = free_port()?;
        let access = S3Access {
            endpoint: format!("http://127.0.0.1:{port}"),
            bucket: "lake".to_owned(),
            region: "us-east-1".to_owned(),
            key_id: "test-key".to_owned(),
            secret: "test-secret".to_owned(),
        };
        let mut command = Command::new(download::weed()?);
        command.env("AWS_ACCESS_KEY_ID", &access.key_id).env("AWS_SECRET_ACCESS_KEY", &access.secret);
        command.args(["mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]);
        command.args(["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]);
        command.args(["-s3.autoCreateBucket=false", "-volume.max=50", &format!("-bucket={}", access.bucket)]);
        command.arg(format!("-dir={}", folder.path().display())).arg(format!("-s3.port={port}"));
        for server in ["admin", "master", "filer", "volume"] {
            command.arg(format!("-{server}.port={}", free_port()?));
        }
        command.current_dir(folder.path());
        let mut process = Process::start("SeaweedFS", command, &folder.path().join("s3.log"))?;
        let client = access.client()?;
        // The port answers some time before a volume can be given to an object.
        let ready = wait::until("SeaweedFS to take an object", START_LIMIT, || {
            process.ensure_running()?;
            Ok(match put_and_delete(&client) {
                Ok(()) => Look::Done(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        });
        ready.with_context(|| process.log_tail())?;
        Ok(Self { access, client, server: Some(Mutex::new((process, folder))) })
    }

    /// How to get there.
    #[must_use]
    pub fn access(&self) -> &S3Access {
        &self.access
    }

    /// All keys that begin with a folder, sorted.
    pub fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let prefix = Path::parse(prefix)?;
        let listed = runtime()?.block_on(async {
            tokio::time::timeout(REQUEST_LIMIT, self.client.list(Some(&prefix)).try_collect::<Vec<_>>()).await
        });
        let objects = listed.context("the S3 server did not list in time")?.context("the S3 server does not list")?;
        let mut keys: Vec<String> = objects.into_iter().map(|object| object.location.to_string()).collect();
        keys.sort();
        Ok(keys)
    }

    /// The bytes of an object.
    pub fn get(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        let path = Path::parse(key)?;
        let got = runtime()?.block_on(async {
            tokio::time::timeout(REQUEST_LIMIT, async { self.client.get(&path).await?.bytes().await }).await
        });
        Ok(got.context("the S3 server did not answer in time")?.with_context(|| format!("no object {key}"))?.to_vec())
    }

    /// Puts an object.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let path = Path::parse(key)?;
        let put = runtime()?
            .block_on(async { tokio::time::timeout(REQUEST_LIMIT, self.client.put(&path, bytes.into())).await });
        put.context("the S3 server did not answer in time")?.with_context(|| format!("cannot put {key}"))?;
        Ok(())
    }

    /// The keys of all uploads below a prefix that were begun and neither completed nor aborted, sorted.
    pub fn open_uploads(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let options = SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", prefix)]);
        let text = runtime()?.block_on(async {
            let url = self.client.signed_url_opts(Method::GET, &Path::default(), REQUEST_LIMIT, &options).await?;
            let answer = reqwest::Client::new().get(url).timeout(REQUEST_LIMIT).send().await?.error_for_status()?;
            anyhow::Ok(answer.text().await?)
        })?;
        ensure!(!text.contains("<IsTruncated>true"), "more uploads than fit on a page");
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut keys: Vec<String> = keys.map(str::to_owned).collect();
        keys.sort();
        Ok(keys)
    }

    /// An address at which anyone may make one request of a key, for a short time. The key as it is in an address.
    pub fn signed(&self, method: Method, key: &str, query: &[(String, String)]) -> anyhow::Result<reqwest::Url> {
        let options =
            SignedUrlOptions::default().with_query(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let path = Path::from_url_path(key)?;
        let signed =
            runtime()?.block_on(async { self.client.signed_url_opts(method, &path, REQUEST_LIMIT, &options).await });
        signed.context("cannot sign an address")
    }

    /// Begins an upload and leaves it open.
    pub fn begin_upload(&self, key: &str) -> anyhow::Result<()> {
        let path = Path::parse(key)?;
        let begun = runtime()?
            .block_on(async { tokio::time::timeout(REQUEST_LIMIT, self.client.create_multipart(&path)).await });
        begun.context("the S3 server did not answer in time")?.with_context(|| format!("cannot begin {key}"))?;
        Ok(())
    }

    /// Aborts an upload, as a bucket's rule does when it expires.
    pub fn abort_upload(&self, key: &str, id: &str) -> anyhow::Result<()> {
        let path = Path::parse(key)?;
        let aborted = runtime()?.block_on(async {
            tokio::time::timeout(REQUEST_LIMIT, self.client.abort_multipart(&path, &id.to_owned())).await
        });
        aborted.context("the S3 server did not answer in time")?.with_context(|| format!("cannot abort {key}"))
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the log is.
    pub fn keep_log(&self) -> String {
        self.server.as_ref().map_or_else(String::new, |server| {
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.1.keep();
            server.0.log_path().display().to_string()
        })
    }
}

impl S3Access {
    /// The same server through something else, for instance a proxy.
    #[must_use]
    pub fn through(&self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..self.clone() }
    }

    /// A client of this bucket.
    fn client(&self) -> anyhow::Result<Arc<AmazonS3>> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.key_id)
            .with_secret_access_key(&self.secret)
            .with_retry(object_store::RetryConfig { max_retries: 0, ..object_store::RetryConfig::default() })
            .build()
            .context("a client of the S3 server")?;
        Ok(Arc::new(store))
    }
}

/// One object comes and goes.
fn put_and_delete(client: &AmazonS3) -> anyhow::Result<()> {
    let path = Path::from(".ready");
    runtime()?.block_on(async {
        tokio::time::timeout(Duration::from_secs(5), async {
            client.put(&path, "ready".into()).await?;
            client.delete(&path).await
        })
        .await
    })??;
    Ok(())
}
