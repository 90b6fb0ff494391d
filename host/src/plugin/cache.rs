//! Compiled plugins on disk, so that a second start does not compile again.
//!
//! A file here is machine code that the host will run: only files that this installation wrote are loaded, from a
//! folder that nobody else can write, and the key holds the digest of the component as it was verified. The cache
//! may be deleted at any time.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use crate::error::PipelineError;

/// A folder of compiled plugins.
#[derive(Debug)]
pub(super) struct CodeCache {
    /// Where.
    folder: PathBuf,
}

impl CodeCache {
    /// Makes the folder, or refuses one that others can write.
    pub(super) fn open(folder: PathBuf) -> Result<Self, PipelineError> {
        let place = folder.display().to_string();
        let failed = |error| PipelineError::stop(format!("cannot use {place} for compiled plugins")).because(error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let metadata = fs::metadata(&folder).map_err(failed)?;
        if metadata.permissions().mode() & 0o022 != 0 {
            return Err(PipelineError::stop(format!(
                "the folder for compiled plugins {place} can be written by other users, who could put machine code \
                 into it: run `chmod 700 {place}`, or set another folder"
            )));
        }
        // A file made here belongs to whom this process acts as.
        let probe = folder.join(format!(".probe-{}", uuid::Uuid::now_v7()));
        let ours = write_private(&probe, b"").and_then(|()| fs::metadata(&probe)).map_err(failed)?;
        fs::remove_file(&probe).map_err(failed)?;
        if ours.uid() != metadata.uid() {
            return Err(PipelineError::stop(format!(
                "the folder for compiled plugins {place} belongs to another user: set another folder"
            )));
        }
        Ok(Self { folder })
    }

    /// The compiled code of a component, if it is there and fits this host.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let path = self.path(engine, digest);
        if !path.exists() {
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "deserialize_file runs the machine code in the file; the folder can be written by this user only \
                      (checked in `open`), the host itself wrote the file by rename from code that it compiled, and \
                      wasmtime checks version and settings"
        )]
        // SAFETY: as in the reason above; the file is never changed in place, only replaced by rename.
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        match loaded {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), "ignoring a compiled plugin that does not fit: {error:#}");
                None
            }
        }
    }

    /// Keeps compiled code; a failure costs only the next start its time.
    pub(super) fn store(&self, engine: &Engine, digest: &[u8; 32], code: &[u8]) {
        let path = self.path(engine, digest);
        let temporary = self.folder.join(format!(".new-{}", uuid::Uuid::now_v7()));
        let stored = write_private(&temporary, code).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = stored {
            tracing::warn!(path = %path.display(), "cannot keep a compiled plugin for the next start: {error}");
            // It may not exist; then there is nothing to remove.
            let _ = fs::remove_file(&temporary);
        }
    }

    /// Named by everything that the code depends on.
    fn path(&self, engine: &Engine, digest: &[u8; 32]) -> PathBuf {
        let mut hasher = KeyHasher(Sha256::new());
        hasher.write(digest);
        // Version, target and settings of wasmtime.
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let key = hex(&hasher.0.finalize());
        self.folder.join(format!("{key}.cwasm"))
    }
}

/// Lets `Hash` values into a SHA-256, since the standard library's hasher is not the same in every release.
struct KeyHasher(Sha256);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Writes a new file that only this user can read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
