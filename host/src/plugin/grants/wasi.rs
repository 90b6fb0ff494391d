//! What an instance sees of WASI: its environment, its folders, a clock, random numbers, and the two streams that it writes to.
//!
//! Promises: nothing else is there; folders can be read and not left, neither by `..` nor by a symbolic link; where the plugin
//! says that it is deterministic, the clock stands at 1970 and random numbers are the same in every instance of the same
//! component with the same config.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use crate::{
    config::{FolderGrant, Grants},
    plugin::{
        failure::{Failure, FailureKind},
        voice::Pipe,
    },
};

/// What a guest may ask of `wasi:random` in one call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// The context of an instance; with a seed it is a deterministic one.
pub(super) fn context(
    grants: &Grants,
    [output, error]: &[Pipe; 2],
    seed: Option<[u8; 32]>,
) -> Result<WasiCtx, Failure> {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdout(output.clone())
        .stderr(error.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(RANDOM_BYTES_MAX);
    for (name, value) in &grants.environment {
        builder.env(name, value.reveal());
    }
    for folder in &grants.files {
        builder.preopened_dir(&folder.path, &folder.name, FsPerms::ReadOnly).map_err(|error| Failure {
            kind: FailureKind::Trap,
            message: format!("was granted {folder}, which cannot be opened: {error:#}"),
            limit: None,
        })?;
    }
    if let Some(seed) = seed {
        let mut seeds = StdRng::from_seed(seed);
        builder
            .wall_clock(StoppedClock)
            .monotonic_clock(StoppedClock)
            .insecure_random_seed(u128::from(seeds.next_u64()) << 64 | u128::from(seeds.next_u64()))
            .insecure_random(StdRng::from_rng(&mut seeds))
            .secure_random(seeds);
    }
    Ok(builder.build())
}

/// Whether folders are there.
pub(super) fn check_folders(folders: &[FolderGrant]) -> Result<(), String> {
    match folders.iter().find(|folder| !folder.path.is_dir()) {
        Some(folder) => Err(format!("is granted {folder}, but there is no such folder")),
        None => Ok(()),
    }
}

/// A clock that stands at the beginning of 1970.
struct StoppedClock;

impl HostWallClock for StoppedClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for StoppedClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}
