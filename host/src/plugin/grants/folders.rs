//! `wasi:filesystem/types` with a witness: what wasmtime refuses a plugin in its folders is logged and counted.
//!
//! Every function is wasmtime's own; here only its answer is looked at. The refusals are those of a path that leads out of a
//! granted folder, and of everything that would change something; and one is ours: pipes and devices are not opened.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _},
    p2::{
        DynInputStream, DynOutputStream, FsError, FsResult, ReaddirIterator,
        bindings::filesystem::types::{
            self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
            MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
        },
    },
};

use crate::plugin::{instance::HostState, voice::Voice};

/// Bytes of a path that are told.
const PATH_BYTES_MAX: usize = 200;

/// wasmtime's file system, and who hears of refusals.
struct Watched<'a> {
    /// Does everything.
    inner: WasiFilesystemCtxView<'a>,
    /// Hears.
    voice: Arc<Voice>,
}

/// For the linker.
struct WatchedFolders;

impl HasData for WatchedFolders {
    type Data<'a> = Watched<'a>;
}

/// Puts the witness in the place of wasmtime's own.
pub(super) fn add_imports(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<HostState, WatchedFolders>(linker, |state| {
        let voice = Arc::clone(&state.session.voice);
        Watched { inner: state.filesystem(), voice }
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Watched<'_> {
    /// Looks at what a function answered; `path` is the beginning of the one that it was given.
    fn look<T>(&self, function: &'static str, path: Option<&str>, answer: FsResult<T>) -> FsResult<T> {
        let code = answer.as_ref().err().and_then(FsError::downcast_ref);
        if let Some(ErrorCode::NotPermitted | ErrorCode::Access | ErrorCode::ReadOnly) = code {
            let (function, path) =
                (function.replace('_', "-"), path.map(|path| format!(" {path:?}")).unwrap_or_default());
            let words = format!("{function}{path}: it leads out of the granted folder, or would change it");
            self.voice.refused("files", "not-permitted", &words);
        }
        answer
    }
}

/// The beginning of a path.
fn beginning(path: &str) -> String {
    path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned()
}

/// Functions that are wasmtime's own, with a look at what they answer; some are given a path.
macro_rules! watched {
    ($($name:ident($($argument:ident: $type:ty),*) $(at $path:ident)? -> $answer:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> FsResult<$answer> {
            let tried: Option<String> = None$(.or(Some(beginning(&$path))))?;
            let answer = types::HostDescriptor::$name(&mut self.inner, $($argument),*).await;
            self.look(stringify!($name), tried.as_deref(), answer)
        })*
    };
}

impl types::Host for Watched<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.inner, error)
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.inner, error)
    }
}

impl types::HostDescriptor for Watched<'_> {
    watched! {
        advise(own: Resource<Descriptor>, offset: Filesize, length: Filesize, advice: Advice) -> ();
        sync_data(own: Resource<Descriptor>) -> ();
        get_flags(own: Resource<Descriptor>) -> DescriptorFlags;
        get_type(own: Resource<Descriptor>) -> DescriptorType;
        set_size(own: Resource<Descriptor>, size: Filesize) -> ();
        set_times(own: Resource<Descriptor>, accessed: NewTimestamp, modified: NewTimestamp) -> ();
        read(own: Resource<Descriptor>, length: Filesize, offset: Filesize) -> (Vec<u8>, bool);
        write(own: Resource<Descriptor>, bytes: Vec<u8>, offset: Filesize) -> Filesize;
        read_directory(own: Resource<Descriptor>) -> Resource<ReaddirIterator>;
        sync(own: Resource<Descriptor>) -> ();
        create_directory_at(own: Resource<Descriptor>, path: String) at path -> ();
        stat(own: Resource<Descriptor>) -> DescriptorStat;
        stat_at(own: Resource<Descriptor>, flags: PathFlags, path: String) at path -> DescriptorStat;
        set_times_at(
            own: Resource<Descriptor>, flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp
        ) at path -> ();
        link_at(
            own: Resource<Descriptor>, flags: PathFlags, path: String, other: Resource<Descriptor>, new_path: String
        ) at path -> ();
        readlink_at(own: Resource<Descriptor>, path: String) at path -> String;
        remove_directory_at(own: Resource<Descriptor>, path: String) at path -> ();
        rename_at(own: Resource<Descriptor>, path: String, other: Resource<Descriptor>, new_path: String) at path -> ();
        symlink_at(own: Resource<Descriptor>, target: String, path: String) at path -> ();
        unlink_file_at(own: Resource<Descriptor>, path: String) at path -> ();
        metadata_hash(own: Resource<Descriptor>) -> MetadataHashValue;
        metadata_hash_at(own: Resource<Descriptor>, flags: PathFlags, path: String) at path -> MetadataHashValue;
    }

    async fn open_at(
        &mut self,
        own: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        how: OpenFlags,
        rights: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let tried = beginning(&path);
        let folder = Resource::new_borrow(own.rep());
        if let Ok(found) = types::HostDescriptor::stat_at(&mut self.inner, folder, flags, path.clone()).await
            && !matches!(
                found.type_,
                DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink
            )
        {
            // Opening a pipe waits for somebody at its other end, on a thread that nobody can call back.
            self.voice.refused("files", "special-file", &format!("open-at {tried:?}: it is no file and no folder"));
            return Err(ErrorCode::NotPermitted.into());
        }
        let answer = types::HostDescriptor::open_at(&mut self.inner, own, flags, path, how, rights).await;
        self.look("open_at", Some(&tried), answer)
    }

    async fn is_same_object(
        &mut self,
        own: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        types::HostDescriptor::is_same_object(&mut self.inner, own, other).await
    }

    fn read_via_stream(&mut self, own: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let answer = types::HostDescriptor::read_via_stream(&mut self.inner, own, offset);
        self.look("read_via_stream", None, answer)
    }

    fn write_via_stream(&mut self, own: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let answer = types::HostDescriptor::write_via_stream(&mut self.inner, own, offset);
        self.look("write_via_stream", None, answer)
    }

    fn append_via_stream(&mut self, own: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let answer = types::HostDescriptor::append_via_stream(&mut self.inner, own);
        self.look("append_via_stream", None, answer)
    }

    fn drop(&mut self, own: Resource<Descriptor>) -> wasmtime::Result<()> {
        types::HostDescriptor::drop(&mut self.inner, own)
    }
}

impl types::HostDirectoryEntryStream for Watched<'_> {
    async fn read_directory_entry(&mut self, own: Resource<ReaddirIterator>) -> FsResult<Option<DirectoryEntry>> {
        types::HostDirectoryEntryStream::read_directory_entry(&mut self.inner, own).await
    }

    fn drop(&mut self, own: Resource<ReaddirIterator>) -> wasmtime::Result<()> {
        types::HostDirectoryEntryStream::drop(&mut self.inner, own)
    }
}
