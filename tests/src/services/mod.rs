//! Real servers, each on free loopback ports, with its data and its log in a folder of its own.
//!
//! A server ends with its value, with the test process however that ends, and by its process id, never by a name. What
//! is already running is used instead where the environment says so: `KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `S3_ENDPOINT_URL`
//! (with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `S3_BUCKET`). The servers themselves come from the
//! cache that `tests/setup.sh` fills.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::OnceLock,
};

use anyhow::Context as _;

pub mod azure;
pub mod certificates;
pub mod dns;
pub mod download;
pub mod folder;
pub mod gcs;
pub mod hdfs;
pub mod hdfs_pair;
pub mod hdfs_secure;
pub mod kafka;
pub mod kafka_secure;
pub mod kerberos;
mod listener;
pub mod misbehaving;
pub mod network;
pub mod oci;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod s3;
pub mod s3_faults;
pub mod topics;

/// Lowest port handed out.
const PORT_FIRST: u16 = 10_100;

/// Highest port handed out: SeaweedFS puts gRPC on port + 10,000, and from 32,768 on Linux hands out ports to others.
const PORT_LAST: u16 = 21_900;

/// A port that is free on loopback now, and so is the one 10,000 above it.
///
/// Ports are tried from a place that differs from process to process, and each is given out once in a process.
pub fn free_port() -> anyhow::Result<u16> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = u32::from(PORT_LAST - PORT_FIRST);
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..span {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let port = PORT_FIRST + u16::try_from(offset).context("a port offset")?;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 10_000) {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port on 127.0.0.1 between {PORT_FIRST} and {PORT_LAST}")
}

/// Where servers and readers were fetched to.
pub fn cache_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("FS_DATA_SINK_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").context("neither FS_DATA_SINK_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/fs-data-sink"))
}

/// The runtime on which the asynchronous clients of the tests run; the tests themselves are plain threads.
pub fn runtime() -> anyhow::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<Result<tokio::runtime::Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|error| anyhow::anyhow!("no runtime for the clients of the tests: {error}"))
}
