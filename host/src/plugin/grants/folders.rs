//! `wasi:filesystem/types` with a witness: what wasmtime refuses a plugin in its folders is logged and counted.
//!
//! Every function is wasmtime's own; here only its answer is looked at. The refusals are those of a path that leads out of a
//! granted folder, and of everything that would change something.

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
    /// Looks at an answer.
    fn look<T>(&self, function: &'static str, answer: FsResult<T>) -> FsResult<T> {
        let code = answer.as_ref().err().and_then(FsError::downcast_ref);
        if let Some(ErrorCode::NotPermitted | ErrorCode::Access | ErrorCode::ReadOnly) = code {
            let words =
                format!("{}: it leads out of the granted folder, or would change it", function.replace('_', "-"));
            self.voice.refused("files", "not-permitted", &words);
        }
        answer
    }
}

/// Functions that are wasmtime's own, with a look at what they answer.
macro_rules! watched {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> FsResult<$answer> {
            let answer = types::HostDescriptor::$name(&mut self.inner, $($argument),*).await;
            self.look(stringify!($name), answer)
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
        create_directory_at(own: Resource<Descriptor>, path: String) -> ();
        stat(own: Resource<Descriptor>) -> DescriptorStat;
        stat_at(own: Resource<Descriptor>, flags: PathFlags, path: String) -> DescriptorStat;
        set_times_at(
            own: Resource<Descriptor>, flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp
        ) -> ();
        link_at(
            own: Resource<Descriptor>, flags: PathFlags, path: String, other: Resource<Descriptor>, new_path: String
        ) -> ();
        open_at(
            own: Resource<Descriptor>, flags: PathFlags, path: String, how: OpenFlags, rights: DescriptorFlags
        ) -> Resource<Descriptor>;
        readlink_at(own: Resource<Descriptor>, path: String) -> String;
        remove_directory_at(own: Resource<Descriptor>, path: String) -> ();
        rename_at(own: Resource<Descriptor>, path: String, other: Resource<Descriptor>, new_path: String) -> ();
        symlink_at(own: Resource<Descriptor>, target: String, path: String) -> ();
        unlink_file_at(own: Resource<Descriptor>, path: String) -> ();
        metadata_hash(own: Resource<Descriptor>) -> MetadataHashValue;
        metadata_hash_at(own: Resource<Descriptor>, flags: PathFlags, path: String) -> MetadataHashValue;
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
        self.look("read_via_stream", answer)
    }

    fn write_via_stream(&mut self, own: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let answer = types::HostDescriptor::write_via_stream(&mut self.inner, own, offset);
        self.look("write_via_stream", answer)
    }

    fn append_via_stream(&mut self, own: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let answer = types::HostDescriptor::append_via_stream(&mut self.inner, own);
        self.look("append_via_stream", answer)
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
