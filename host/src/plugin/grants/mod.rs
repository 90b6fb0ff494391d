//! What a plugin reaches besides its rows: servers, buckets, values of its configuration, an environment, folders.
//!
//! Comes in: what `plugins[].grants` says, and calls of the plugin's imports. Goes out: answers, and refusals, which the plugin
//! hears as an error, the log with plugin, pipeline and tenant, and the counter `plugin_refusals`. Promises: nothing is reached
//! that was not granted, and each import asks again at every call; every call has a limit of time, of bytes and of number, and
//! its time counts in the deadline of the call that it is made in.
//!
//! `imports` holds a component's imports against the grants, `http` sends requests, `keyvalue` looks things up in a `redis` or a
//! `table`, `wasi` makes the environment, the folders, the clock and the random numbers, `folders` watches what is tried in them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{
    bindings::config_store,
    clock::CallClock,
    failure::Failure,
    instance::HostState,
    voice::{Pipe, Voice},
};
use crate::config::PluginConfig;
use http::{Destination, Requests};
use keyvalue::Bucket;

mod folders;
mod http;
pub(super) mod imports;
mod keyvalue;
mod redis;
pub(super) mod resolve;
mod table;
#[cfg(test)]
mod testing;
mod wasi;

/// Bytes that the fields of one request or response may take in the host's memory; eight times what most servers allow.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What one plugin reaches, shared by its instances.
pub(super) struct Capabilities {
    /// How it was configured.
    config: Arc<PluginConfig>,
    /// Servers, in the order of the grants.
    destinations: Arc<[Destination]>,
    /// Buckets, in the order of the grants.
    buckets: Vec<Arc<Bucket>>,
    /// What random numbers are made from where the plugin says that it is deterministic.
    seed: [u8; 32],
    /// Whether it said so.
    is_deterministic: AtomicBool,
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Capabilities").field("grants", &self.config.grants).finish_non_exhaustive()
    }
}

impl Capabilities {
    /// Reads tables and certificates and looks for the folders; connects to nothing. Blocks. `digest` is the component's.
    pub(super) fn open(config: &Arc<PluginConfig>, digest: &[u8; 32]) -> Result<Self, String> {
        let grants = &config.grants;
        let destinations =
            grants.http.iter().map(|grant| Destination::new(grant, &resolve::system())).collect::<Result<_, _>>()?;
        let buckets =
            grants.keyvalue.iter().map(|grant| Bucket::open(grant).map(Arc::new)).collect::<Result<_, _>>()?;
        wasi::check_folders(&grants.files)?;
        let seed = Sha256::new().chain_update(digest).chain_update(&config.config_json).finalize().into();
        let config = Arc::clone(config);
        Ok(Self { config, destinations, buckets, seed, is_deterministic: AtomicBool::new(false) })
    }

    /// Whether the plugin said that it is deterministic.
    pub(super) fn is_deterministic(&self) -> bool {
        self.is_deterministic.load(Ordering::Relaxed)
    }

    /// Notes that it did.
    pub(super) fn set_deterministic(&self) {
        self.is_deterministic.store(true, Ordering::Relaxed);
    }

    /// Environment, folders, clock and random numbers of an instance.
    pub(super) fn wasi(&self, pipes: &[Pipe; 2]) -> Result<WasiCtx, Failure> {
        let seed = self.is_deterministic().then_some(self.seed);
        wasi::context(&self.config.grants, pipes, seed)
    }
}

/// What one instance does with what its plugin was granted.
pub(super) struct Session {
    /// What it reaches.
    capabilities: Arc<Capabilities>,
    /// Limits of `wasi:http`.
    http: WasiHttpCtx,
    /// Requests.
    requests: Requests,
    /// Where refusals are told.
    voice: Arc<Voice>,
    /// When the call that runs now must have ended.
    clock: CallClock,
    /// Keys that it asked for or wrote, for each bucket.
    keys: Vec<usize>,
}

impl Session {
    /// Nothing was done yet.
    pub(super) fn new(capabilities: &Arc<Capabilities>, voice: &Arc<Voice>, clock: &CallClock) -> Self {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES_MAX);
        Self {
            capabilities: Arc::clone(capabilities),
            http,
            requests: Requests::new(&capabilities.destinations, voice, clock),
            voice: Arc::clone(voice),
            clock: clock.clone(),
            keys: vec![0; capabilities.buckets.len()],
        }
    }

    /// A call begins.
    pub(super) fn begin_call(&mut self) {
        self.requests.begin_call();
        self.keys.fill(0);
    }
}

/// How long something may take that has a limit of its own, so that the plugin hears of it before its call is over.
fn time_left(limit: Duration, clock: &CallClock) -> Duration {
    let left = clock.deadline().saturating_duration_since(Instant::now());
    limit.min(left.saturating_sub(left / 10))
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.count_call();
        let Session { http, requests, .. } = &mut self.session;
        WasiHttpCtxView { hooks: requests, table: &mut self.table, ctx: http }
    }
}

impl config_store::Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, config_store::Error>> {
        self.spend(key.len())?;
        let pairs = &self.session.capabilities.config.grants.config;
        let value = pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.reveal().to_owned());
        Ok(Ok(value))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config_store::Error>> {
        self.spend(0)?;
        let pairs = &self.session.capabilities.config.grants.config;
        Ok(Ok(pairs.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect()))
    }
}

/// Adds what has to be granted to a linker that has WASI already. Which component gets it is decided by its imports.
pub(super) fn add_imports(linker: &mut wasmtime::component::Linker<HostState>) -> wasmtime::Result<()> {
    folders::add_imports(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    keyvalue::add_imports(linker)
}
