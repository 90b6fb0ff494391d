//! Components that are downloaded: files by `https://`, artifacts of OCI registries.
//!
//! Comes in: an address, who asks, a digest perhaps. Goes out: the bytes of a component, or words. Promises: what has a digest
//! comes with that digest or not at all, from whatever server; nothing is read beyond `limits.component_bytes`; it ends
//! within `download.timeout`; no server leads the host to an address that it may not connect to (`client`); who asks is told only
//! to the server that was named, and to whom it names for tokens; what has a digest is kept (`blobs`), so that a start needs no
//! server.

use std::{thread, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    cache::hex,
    compile::CompileFault,
    grants::resolve::{self, Lookup},
};
use crate::config::{Download, Location};
pub(super) use blobs::Blobs;
use client::{Client, Most};

mod blobs;
mod client;
mod oci;
#[cfg(test)]
mod tests;

/// Tries of a request that fails in a way that may pass.
const TRIES: u32 = 3;
/// The pause before the second try; the next is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The bytes of a component. Blocks.
pub(super) fn fetch(
    download: &Download,
    sha256: Option<[u8; 32]>,
    bytes_max: usize,
    blobs: Option<&Blobs>,
) -> Result<Vec<u8>, CompileFault> {
    if let Some(bytes) = sha256.and_then(|digest| blobs?.load(&digest, bytes_max)) {
        return Ok(bytes);
    }
    let client = Client::new(download, "https", resolve::system())?;
    let fetching = run(&client, download, bytes_max, blobs);
    // This may be a thread of a runtime, which must not wait for another one.
    let bytes = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("cannot be downloaded: {error}"))?;
            let fetched = runtime.block_on(fetching);
            // A look-up that hangs cannot be called off, and is not waited for.
            runtime.shutdown_background();
            fetched
        });
        worker.join().unwrap_or_else(|_| Err("cannot be downloaded: the download ended abnormally".to_owned().into()))
    })?;
    if let (Some(digest), Some(blobs)) = (sha256, blobs)
        && Sha256::digest(&bytes).as_slice() == digest
    {
        blobs.store(&digest, &bytes);
    }
    Ok(bytes)
}

/// How large a component may be.
fn component(bytes: usize) -> Most {
    Most { bytes, limit: Some("component_bytes") }
}

/// The same, within its time.
async fn run(
    client: &Client,
    download: &Download,
    bytes_max: usize,
    blobs: Option<&Blobs>,
) -> Result<Vec<u8>, CompileFault> {
    let all = async {
        match &download.location {
            Location::File(url) => client.get(url, "application/wasm, */*;q=0.1", component(bytes_max)).await,
            Location::Artifact(artifact) => oci::pull(client, artifact, bytes_max, blobs).await,
        }
    };
    tokio::time::timeout(download.timeout, all).await.unwrap_or_else(|_| {
        Err(format!("cannot be downloaded within {:?} (download.timeout)", download.timeout).into())
    })
}

/// Refuses bytes of another digest.
fn check_digest(what: &str, bytes: &[u8], wanted: &[u8; 32]) -> Result<(), String> {
    let found: [u8; 32] = Sha256::digest(bytes).into();
    if found == *wanted {
        return Ok(());
    }
    Err(format!(
        "cannot be downloaded: the server's {what} has SHA-256 {}, but {} was asked for; nothing of it is used",
        hex(&found),
        hex(wanted)
    ))
}
