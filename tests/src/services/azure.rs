//! Azure Blob Storage, as far as Azurite is one: Microsoft's own emulator, which runs on Node.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink::config::{AzureConfig, AzureCredentials, Secret, SinkKind};
use serde_json::json;

use super::{
    download,
    folder::TestFolder,
    free_port,
    process::{Ended, Process},
};
use crate::{
    lake,
    wait::{self, Look},
};

/// A start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Making a container, or copying one of some hundred files.
const REQUEST_LIMIT: Duration = Duration::from_mins(2);

/// The account that every Azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";

/// Its key, which is no secret.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The container of the tests.
pub const CONTAINER: &str = "lake";

/// A server with one container.
#[derive(Debug)]
pub struct Azure {
    /// `127.0.0.1:10000`.
    authority: String,
    /// The server and its folder.
    server: Mutex<(Process, TestFolder)>,
}

impl Azure {
    /// Whether Azurite was fetched: it needs Node, which not every machine has.
    #[must_use]
    pub fn is_there() -> bool {
        download::azurite().is_ok()
    }

    /// Starts a server with one container.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("azure")?;
        let port = free_port()?;
        let mut command = Command::new("node");
        command.arg(download::azurite()?).args(["--blobHost", "127.0.0.1", "--silent", "--disableTelemetry"]);
        command.arg("--skipApiVersionCheck").args(["--blobPort", &port.to_string()]);
        command.arg("--location").arg(folder.path()).current_dir(folder.path());
        let process = Process::start("Azurite", command, &folder.path().join("azurite.log"))?;
        let azure = Self { authority: format!("127.0.0.1:{port}"), server: Mutex::new((process, folder)) };
        wait::until("Azurite to listen", START_LIMIT, || {
            azure.server.lock().unwrap_or_else(PoisonError::into_inner).0.ensure_running()?;
            let answer = std::net::TcpStream::connect(&azure.authority);
            Ok(answer.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Done(())))
        })?;
        azure.python(None)?;
        Ok(azure)
    }

    /// The address with the account in it, as `sink.endpoint_url` takes it.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.authority)
    }

    /// A folder of the container, as the product's configuration has it.
    #[must_use]
    pub fn sink(&self, prefix: &str) -> SinkKind {
        SinkKind::Azure(AzureConfig {
            account: ACCOUNT.to_owned(),
            container: CONTAINER.to_owned(),
            prefix: prefix.to_owned(),
            endpoint_url: Some(self.endpoint_url()),
            credentials: AzureCredentials::AccessKey(Secret::new(KEY.to_owned())),
        })
    }

    /// Copies a folder of the container, by a client that is not ours.
    pub fn download(&self, prefix: &str, to: &Path) -> anyhow::Result<()> {
        self.python(Some((prefix, to)))
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the log is.
    pub fn keep_log(&self) -> String {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.1.keep();
        server.0.log_path().display().to_string()
    }

    /// Makes the container, or copies a folder of it.
    fn python(&self, copy: Option<(&str, &Path)>) -> anyhow::Result<()> {
        let order = match copy {
            None => json!({"authority": self.authority, "account": ACCOUNT, "key": KEY, "container": CONTAINER}),
            Some((prefix, folder)) => json!({
                "authority": self.authority, "account": ACCOUNT, "key": KEY, "container": format!("{CONTAINER}/{prefix}"),
                "folder": folder,
            }),
        };
        let log = self.server.lock().unwrap_or_else(PoisonError::into_inner).1.path().join("python.log");
        let mut process = lake::python("azure.py", &order, &log)?;
        let ended = process.wait(REQUEST_LIMIT).context("pyarrow and Azurite")?;
        ensure!(ended == Ended::Code(0), "pyarrow does not get on with Azurite\n{}", process.log_tail());
        Ok(())
    }
}
