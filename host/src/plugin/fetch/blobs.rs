//! What was downloaded and has a digest, on disk. It may be deleted at any time.
//!
//! Promises: what comes out has the digest that it was asked by, whoever wrote the file; the folder does not grow beyond its limit.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use crate::plugin::cache::{hex, write_private};

/// Bytes of all files; what was not used for longest goes first.
const BYTES_MAX: u64 = 1 << 30;

/// A folder of files that are named by their digest.
#[derive(Debug)]
pub(in crate::plugin) struct Blobs {
    /// Where.
    folder: PathBuf,
    /// Bytes of all of them.
    bytes_max: u64,
}

impl Blobs {
    /// In a folder, which is made when it is needed.
    pub(in crate::plugin) fn new(folder: PathBuf) -> Self {
        Self { folder, bytes_max: BYTES_MAX }
    }

    /// The bytes of a digest, where they are there and no more than so many.
    pub(super) fn load(&self, digest: &[u8; 32], bytes_max: usize) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let file = fs::File::open(&path).ok()?;
        let mut bytes = Vec::new();
        (&file).take((bytes_max as u64).saturating_add(1)).read_to_end(&mut bytes).ok()?;
        if bytes.len() > bytes_max {
            return None;
        }
        if Sha256::digest(&bytes).as_slice() != digest {
            tracing::warn!(path = %path.display(), "a downloaded plugin was changed on disk: it is downloaded again");
            // It is written again.
            let _ = fs::remove_file(&path);
            return None;
        }
        // Only the order of what goes first depends on it.
        let _ = file.set_modified(SystemTime::now());
        Some(bytes)
    }

    /// Keeps bytes; a failure costs the next start a download.
    pub(super) fn store(&self, digest: &[u8; 32], bytes: &[u8]) {
        let stored = fs::create_dir_all(&self.folder).and_then(|()| {
            let temporary = self.folder.join(format!(".new-{}", uuid::Uuid::now_v7()));
            let written = write_private(&temporary, bytes).and_then(|()| fs::rename(&temporary, self.path(digest)));
            if written.is_err() {
                // It may not exist; then there is nothing to remove.
                let _ = fs::remove_file(&temporary);
            }
            written
        });
        if let Err(error) = stored.and_then(|()| self.trim()) {
            tracing::warn!(folder = %self.folder.display(), "cannot keep a downloaded plugin for the next start: {error}");
        }
    }

    /// Deletes what was not used for longest, down to the limit.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another process may have deleted it meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
        }
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            if fs::remove_file(path).is_ok() {
                bytes -= length;
            }
        }
        Ok(())
    }

    /// Where the bytes of a digest are.
    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join(hex(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_its_digest_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs { folder: folder.path().join("blobs"), bytes_max: 2_500 };
        let pieces: Vec<(Vec<u8>, [u8; 32])> = (0..3_u8)
            .map(|number| {
                let bytes = vec![number; 1_000];
                let digest = Sha256::digest(&bytes).into();
                (bytes, digest)
            })
            .collect();
        assert_eq!(blobs.load(&pieces[0].1, 1_000), None);
        for (age, (bytes, digest)) in pieces.iter().enumerate().take(2) {
            blobs.store(digest, bytes);
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            fs::File::open(blobs.path(digest)).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(blobs.load(&pieces[0].1, 999), None, "more than was asked for");
        assert_eq!(blobs.load(&pieces[0].1, 1_000).as_deref(), Some(pieces[0].0.as_slice()));
        // The first was used just now, so the second goes.
        blobs.store(&pieces[2].1, &pieces[2].0);
        let there = pieces.iter().map(|(_, digest)| blobs.load(digest, 1_000).is_some()).collect::<Vec<_>>();
        assert_eq!(there, [true, false, true]);
        fs::write(blobs.path(&pieces[2].1), b"other bytes").unwrap();
        assert_eq!(blobs.load(&pieces[2].1, 1_000), None);
        assert!(!blobs.path(&pieces[2].1).exists());
    }
}
