//! A folder on this machine.
//!
//! What is promised to be on the disk is there when a request ends: the bytes of a file, and its name in its folder. Small
//! objects are `object_store`'s, which writes them aside, brings them to the disk (fsync) and links them to their name, so that
//! no name ever has a part of a record. Staged files grow by positioned writes of our own, so that a part that met a full
//! disk can be written once more.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use object_store::{Error, ObjectStore, PutPayload, Result, local::LocalFileSystem};

use super::hadoop::AppendStore;
use crate::{config::LocalConfig, error::PipelineError};

/// A folder, as the store sees it.
#[derive(Debug)]
pub(super) struct LocalFolder {
    /// Small objects, lists, links.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same folder, for staged files.
    pub(super) staging: Arc<LocalStaging>,
    /// Name for messages.
    pub(super) location: String,
}

/// Staged files of a folder.
#[derive(Debug)]
pub(super) struct LocalStaging {
    /// Knows where paths are.
    objects: Arc<LocalFileSystem>,
    /// Folders above are not ours to bring to the disk.
    root: PathBuf,
}

/// Makes the folder when it is missing.
pub(super) fn open(config: &LocalConfig) -> Result<LocalFolder, PipelineError> {
    let folder = &config.base_path;
    let explain = |error: Box<dyn std::error::Error + Send + Sync>| {
        PipelineError::stop(format!("sink.base_path {}: the folder cannot be made or opened", folder.display()))
            .because(error)
    };
    fs::create_dir_all(folder).map_err(|error| explain(error.into()))?;
    let root = folder.canonicalize().map_err(|error| explain(error.into()))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| explain(error.into()))?;
    let objects = Arc::new(store.with_fsync(true));
    let staging = Arc::new(LocalStaging { objects: Arc::clone(&objects), root });
    Ok(LocalFolder { objects, staging, location: folder.display().to_string() })
}

#[async_trait]
impl AppendStore for LocalStaging {
    async fn append_at(
        &self,
        path: &object_store::path::Path,
        offset: u64,
        bytes: &PutPayload,
        _is_repeated: bool,
    ) -> Result<()> {
        let (file, root, bytes) = (self.objects.path_to_filesystem(path)?, self.root.clone(), bytes.clone());
        tokio::task::spawn_blocking(move || write_at(&root, &file, offset, &bytes))
            .await
            .map_err(|error| Error::Generic { store: "LocalFileSystem", source: error.into() })?
            .map_err(|error| Error::Generic { store: "LocalFileSystem", source: error.into() })
    }
}

/// Writes bytes at a place of a file and brings them to the disk. Everything is written again by a repeated call: after a
/// failed fsync, what is only in the cache may count as written. Only the first part makes the file, so that a part under way
/// does not bring back a file that was given up.
fn write_at(root: &Path, path: &Path, offset: u64, bytes: &PutPayload) -> io::Result<()> {
    let folder = path.parent().unwrap_or(root);
    let options = OpenOptions::new().create(offset == 0).write(true).truncate(false).to_owned();
    let mut file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && offset == 0 => {
            fs::create_dir_all(folder)?;
            for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
                File::open(above)?.sync_all()?;
            }
            options.open(path)?
        }
        opened => opened?,
    };
    file.seek(SeekFrom::Start(offset))?;
    bytes.iter().try_for_each(|piece| file.write_all(piece))?;
    file.sync_all()?;
    if offset == 0 { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: a part that was half written is whole after it was repeated, and the part behind it as well.
    #[tokio::test]
    async fn a_part_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let LocalFolder { staging, .. } = open(&LocalConfig { base_path: folder.path().to_owned() }).unwrap();
        let path = object_store::path::Path::from("_fs_data_sink/p/staging/x");
        staging.append_at(&path, 0, &"ab".into(), false).await.unwrap();
        for (offset, bytes) in [(0, "abcd"), (4, "ef"), (4, "efgh")] {
            staging.append_at(&path, offset, &bytes.into(), true).await.unwrap();
        }
        assert_eq!(fs::read(folder.path().join(path.as_ref())).unwrap(), b"abcdefgh");
    }
}
