//! A real schema registry: Apicurio, by its interface that is Confluent's, with its schemas in memory.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{download, folder::TestFolder, free_port, process::Process};
use crate::{
    http,
    wait::{self, Look},
};

/// A JVM on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(2);

/// Where the interface begins.
const BASE: &str = "/apis/ccompat/v7";

/// A registry of ours.
#[derive(Debug)]
pub struct Registry {
    /// Its log.
    folder: TestFolder,
    /// Where it listens.
    port: u16,
    /// The JVM; `None` while it is stopped.
    process: Mutex<Option<Process>>,
}

impl Registry {
    /// Starts one and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        let registry = Self { folder: TestFolder::new("registry")?, port: free_port()?, process: Mutex::new(None) };
        registry.start_again()?;
        Ok(registry)
    }

    /// Starts it on its port, without any schema.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-jar"]).arg(download::registry()?).current_dir(self.folder.path());
        command.env("QUARKUS_HTTP_HOST", "127.0.0.1").env("QUARKUS_HTTP_PORT", self.port.to_string());
        let log = self.folder.path().join("registry.log");
        *self.process() = Some(Process::start_with_input("registry", command, &log, Stdio::null())?);
        wait::until("the registry to answer", START_LIMIT, || {
            if let Some(process) = self.process().as_mut() {
                process.ensure_running()?;
            }
            Ok(match http::get(&self.address(), &format!("{BASE}/schemas/types")) {
                Ok((200, _)) => Look::Done(()),
                Ok((status, _)) => Look::NotYet(format!("status {status}")),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// `kill -9`; its schemas are gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process().take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Registers a schema of a type (`AVRO`, `PROTOBUF`, `JSON`) that refers to others (name, subject); its number.
    pub fn register(
        &self,
        subject: &str,
        kind: &str,
        schema: &str,
        references: &[(&str, &str)],
    ) -> anyhow::Result<u32> {
        let references: Vec<Value> =
            references.iter().map(|(name, subject)| json!({"name": name, "subject": subject, "version": 1})).collect();
        let order = json!({"schemaType": kind, "schema": schema, "references": references});
        let path = format!("{BASE}/subjects/{subject}/versions");
        let (status, answer) = http::post(&self.address(), &path, &order.to_string())?;
        ensure!(status == 200, "the registry answers {status} to {subject}: {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        let id = answer.get("id").and_then(Value::as_u64).with_context(|| format!("no number: {answer}"))?;
        Ok(u32::try_from(id)?)
    }

    /// For `source.schema_registry.url`.
    #[must_use]
    pub fn url(&self) -> String {
        Self::url_at(&self.endpoint())
    }

    /// The same for clients that reach it at another endpoint, as through a proxy.
    #[must_use]
    pub fn url_at(endpoint: &str) -> String {
        format!("{endpoint}{BASE}")
    }

    /// `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Host and port.
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process.
    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
