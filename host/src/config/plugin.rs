//! One WebAssembly component of a pipeline: `plugins[]`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{ConfigPlaces, Download, Grants, PluginLimits};

/// One plugin in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// Its name in this pipeline: metric label, log field, dead letters.
    pub name: Arc<str>,
    /// The component; where it is downloaded, its address, for messages.
    pub path: PathBuf,
    /// Where it is downloaded from, if it is.
    pub download: Option<Download>,
    /// What the file's SHA-256 must be.
    pub sha256: Option<[u8; 32]>,
    /// Who has to have signed it.
    pub signature: Option<Signature>,
    /// JSON text for the plugin's `open`.
    pub config_json: String,
    /// Where its values stand.
    pub config_places: ConfigPlaces,
    /// What it may reach besides its rows.
    pub grants: Grants,
    /// What it may use.
    pub limits: PluginLimits,
    /// Keys of `limits` that the configuration has, until they were held against what the tenant allows; then none.
    pub limits_written: Vec<&'static str>,
    /// What happens to rows that it refuses.
    pub on_reject: OnReject,
    /// What happens when it traps or runs out of time.
    pub on_trap: OnTrap,
}

impl PluginConfig {
    /// The files of this machine that it is loaded from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let component = self.download.is_none().then_some(self.path.as_path());
        component.into_iter().chain(self.signature.as_ref().map(|signature| signature.path.as_path()))
    }
}

/// Who has to have signed a component, and where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The public key of minisign, without its comment.
    pub public_key: String,
    /// The signature's file.
    pub path: PathBuf,
}

/// What happens to rows that a plugin refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReject {
    /// They become dead letters.
    DeadLetter,
    /// They are counted and dropped.
    Drop,
    /// The pipeline stops.
    Fail,
}

/// What happens when a plugin traps or runs out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnTrap {
    /// Tries in a fresh instance before `then`.
    pub retries: u32,
    /// What happens to the batch after the last try.
    pub then: OnReject,
    /// Whether a batch that fails to the last try is split, so that only the rows that do it are refused.
    pub bisect: bool,
    /// Batches in a row that may fail before the pipeline waits with the last of them; 0: it never waits.
    pub open_circuit_after: u32,
    /// Pause before the first new instance.
    pub backoff_from: Duration,
    /// Longest pause; it doubles from trap to trap and starts again after a good batch.
    pub backoff_to: Duration,
}

impl Default for OnTrap {
    fn default() -> Self {
        Self {
            retries: 1,
            then: OnReject::DeadLetter,
            bisect: false,
            open_circuit_after: 5,
            backoff_from: Duration::from_millis(100),
            backoff_to: Duration::from_secs(60),
        }
    }
}
