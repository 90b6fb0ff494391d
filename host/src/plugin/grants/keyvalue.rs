//! `wasi:keyvalue/store` and `batch`: look-ups in buckets that a plugin was granted, in a Redis or in a table.
//!
//! Comes in: names of buckets, keys and values of any size in any number. Goes out: values. Promises: a plugin sees the buckets
//! that it was granted and of those only its own keys; what is too long, too large or too much is refused in words before
//! anything is asked; an operation ends within the grant's time and before the plugin's call does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{redis::RedisKeys, table::Table, time_left};
use crate::{
    config::{Access, BucketGrant, BucketStore},
    plugin::{instance::HostState, voice::Voice},
};
use bindings::wasi::keyvalue::{
    batch,
    store::{self, Error, KeyResponse},
};

/// What wasmtime generates from `wit/deps/keyvalue`.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package fs-data-sink:host;
            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        world: "fs-data-sink:host/keyvalue",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::plugin::grants::keyvalue::OpenBucket },
    });
}

/// Bytes of one key. Redis' own keys are seldom longer than 100.
pub(super) const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of all values of one answer, which the host holds until the plugin has them.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Keys in one page of a listing.
pub(super) const PAGE_KEYS: usize = 1_000;

/// One bucket that was granted.
pub(super) struct Bucket {
    /// How.
    grant: BucketGrant,
    /// What is behind it.
    keys: Keys,
}

/// What is behind a bucket.
enum Keys {
    /// Strings of a Redis.
    Redis(Box<RedisKeys>),
    /// Rows of a file.
    Table(Table),
}

/// A handle on a bucket.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct OpenBucket(usize);

/// What an operation on keys came to.
pub(super) type Answer<T> = Result<T, KeyFault>;

/// Why an operation on keys came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyFault {
    /// In words for the plugin.
    Told(String),
    /// The store failed. Where it is and how it is built is not for the plugin, but for the log.
    Store(String),
}

impl KeyFault {
    /// In words for the plugin.
    pub(super) fn told(words: impl Into<String>) -> Self {
        Self::Told(words.into())
    }
}

/// The fault of an answer that would be too large.
pub(super) fn too_much() -> KeyFault {
    KeyFault::told(format!("values of more than {} MiB; ask for fewer keys at once", ANSWER_BYTES_MAX >> 20))
}

impl Bucket {
    /// Reads a table; connects to nothing yet. Blocks.
    pub(super) fn open(grant: &BucketGrant) -> Result<Self, String> {
        let keys = match &grant.store {
            BucketStore::Redis(redis) => {
                Keys::Redis(Box::new(RedisKeys::new(redis.as_ref().clone(), grant.value_bytes)))
            }
            BucketStore::Table(table) => Keys::Table(
                Table::read(table, grant.value_bytes)
                    .map_err(|words| format!("is granted the bucket {:?}, but {words}", grant.bucket))?,
            ),
        };
        Ok(Self { grant: grant.clone(), keys })
    }

    /// The values of keys, in their order.
    async fn get_many(&self, keys: &[String]) -> Answer<Vec<Option<Vec<u8>>>> {
        match &self.keys {
            Keys::Redis(redis) => redis.get_many(keys).await,
            Keys::Table(table) => table.get_many(keys),
        }
    }

    /// Whether a key is there.
    async fn exists(&self, key: &str) -> Answer<bool> {
        match &self.keys {
            Keys::Redis(redis) => redis.exists(key).await,
            Keys::Table(table) => Ok(table.exists(key)),
        }
    }

    /// A page of keys and where the next one begins.
    async fn list(&self, cursor: u64) -> Answer<(Vec<String>, Option<u64>)> {
        match &self.keys {
            Keys::Redis(redis) => redis.list(cursor).await,
            Keys::Table(table) => Ok(table.list(cursor)),
        }
    }

    /// Writes values, in their order.
    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Answer<()> {
        match &self.keys {
            Keys::Redis(redis) => redis.set_many(values).await,
            Keys::Table(_) => Err(KeyFault::told(NO_WRITES)),
        }
    }

    /// Takes keys away.
    async fn delete_many(&self, keys: &[String]) -> Answer<()> {
        match &self.keys {
            Keys::Redis(redis) => redis.delete_many(keys).await,
            Keys::Table(_) => Err(KeyFault::told(NO_WRITES)),
        }
    }

    /// Nobody waits any longer for what was asked then.
    fn gave_up(&self, asked: Instant) {
        match &self.keys {
            Keys::Redis(redis) => redis.gave_up(asked),
            Keys::Table(_) => {}
        }
    }
}

/// A table is never granted for writing.
const NO_WRITES: &str = "a table cannot be written";

/// An operation that may be done.
struct Admitted {
    /// Where.
    bucket: Arc<Bucket>,
    /// How long it may take.
    limit: Duration,
    /// Where refusals are told.
    voice: Arc<Voice>,
}

impl Admitted {
    /// Waits for it.
    async fn answer<T>(&self, doing: impl Future<Output = Answer<T>> + Send) -> Result<T, Error> {
        let asked = Instant::now();
        match tokio::time::timeout(self.limit, doing).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(KeyFault::Told(words))) => {
                self.voice.refused("keyvalue", "answer", &format!("bucket {}: {words}", self.bucket.grant.bucket));
                Err(Error::Other(words))
            }
            Ok(Err(KeyFault::Store(words))) => {
                self.voice.failed("keyvalue", &format!("bucket {}: {words}", self.bucket.grant.bucket));
                Err(Error::Other("the store behind the bucket does not answer as it should".to_owned()))
            }
            Err(_) => {
                self.bucket.gave_up(asked);
                let words =
                    format!("no answer within {:?} (timeout), or before the call ends", self.bucket.grant.timeout);
                self.voice.refused("keyvalue", "timeout", &format!("bucket {}: {words}", self.bucket.grant.bucket));
                Err(Error::Other(words))
            }
        }
    }
}

impl HostState {
    /// Whether an operation on so many keys may be done. `lengths` are those of keys and values.
    fn admit<'a>(
        &mut self,
        bucket: &Resource<OpenBucket>,
        access: Access,
        lengths: impl Iterator<Item = (usize, usize)> + Clone + 'a,
    ) -> wasmtime::Result<Result<Admitted, Error>> {
        self.spend(lengths.clone().map(|(key, value)| key.saturating_add(value)).fold(0, usize::saturating_add))?;
        let at = self.table.get(bucket)?.0;
        let session = &mut self.session;
        let (Some(bucket), Some(used)) = (session.capabilities.buckets.get(at), session.keys.get_mut(at)) else {
            return Err(wasmtime::Error::msg("the bucket is gone"));
        };
        let BucketGrant { bucket: name, access: granted, value_bytes, timeout, keys_per_call, .. } = &bucket.grant;
        let refuse = |error: Option<Error>, reason: &'static str, words: String| {
            session.voice.refused("keyvalue", reason, &format!("bucket {name}: {words}"));
            Ok(Err(error.unwrap_or(Error::Other(words))))
        };
        if !granted.allows(access) {
            let words = format!("{} is not granted, but {}", access.as_str(), granted.as_str());
            return refuse(Some(Error::AccessDenied), "access", words);
        }
        let wanted = lengths.clone().count();
        if used.saturating_add(wanted) > *keys_per_call {
            return refuse(None, "keys", format!("more than {keys_per_call} keys in one call (keys_per_call)"));
        }
        *used += wanted;
        for (key_bytes, bytes) in lengths.clone() {
            if key_bytes > KEY_BYTES_MAX {
                return refuse(None, "key-bytes", format!("a key of {key_bytes} bytes; at most {KEY_BYTES_MAX}"));
            }
            if bytes > *value_bytes {
                let words = format!("a value of {bytes} bytes; at most {value_bytes} (value_bytes)");
                return refuse(None, "value-bytes", words);
            }
        }
        let sent_bytes = lengths.map(|(key, value)| key + value).sum();
        if access == Access::Write
            && let Err(words) = session.voice.leaves("keyvalue", sent_bytes)
        {
            return refuse(None, "tenant-egress", words);
        }
        let limit = time_left(*timeout, &session.clock);
        Ok(Ok(Admitted { bucket: Arc::clone(bucket), limit, voice: Arc::clone(&session.voice) }))
    }
}

/// Lengths of keys alone.
fn key_lengths(keys: &[String]) -> impl Iterator<Item = (usize, usize)> + Clone {
    keys.iter().map(|key| (key.len(), 0))
}

/// Goes on with what is admitted, or answers the refusal.
macro_rules! admitted {
    ($admitted:expr) => {
        match $admitted? {
            Ok(admitted) => admitted,
            Err(error) => return Ok(Err(error)),
        }
    };
}

impl store::Host for HostState {
    async fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<OpenBucket>, Error>> {
        self.spend(identifier.len())?;
        let session = &self.session;
        let buckets = &session.capabilities.buckets;
        let Some(at) = buckets.iter().position(|bucket| bucket.grant.bucket == identifier) else {
            session.voice.refused("keyvalue", "bucket", &format!("the bucket {identifier:?} is not granted"));
            return Ok(Err(Error::AccessDenied));
        };
        Ok(Ok(self.table.push(OpenBucket(at))?))
    }
}

impl store::HostBucket for HostState {
    async fn get(
        &mut self,
        bucket: Resource<OpenBucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let keys = [key];
        let admitted = admitted!(self.admit(&bucket, Access::Read, key_lengths(&keys)));
        let values = admitted.answer(admitted.bucket.get_many(&keys)).await;
        Ok(values.map(|values| values.into_iter().next().flatten()))
    }

    async fn set(
        &mut self,
        bucket: Resource<OpenBucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        batch::Host::set_many(self, bucket, vec![(key, value)]).await
    }

    async fn delete(&mut self, bucket: Resource<OpenBucket>, key: String) -> wasmtime::Result<Result<(), Error>> {
        batch::Host::delete_many(self, bucket, vec![key]).await
    }

    async fn exists(&mut self, bucket: Resource<OpenBucket>, key: String) -> wasmtime::Result<Result<bool, Error>> {
        let admitted = admitted!(self.admit(&bucket, Access::Read, std::iter::once((key.len(), 0))));
        Ok(admitted.answer(admitted.bucket.exists(&key)).await)
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<OpenBucket>,
        cursor: Option<u64>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        // A page counts as the keys that it may have.
        let admitted = admitted!(self.admit(&bucket, Access::Read, std::iter::repeat_n((0, 0), PAGE_KEYS)));
        let page = admitted.answer(admitted.bucket.list(cursor.unwrap_or(0))).await;
        Ok(page.map(|(keys, cursor)| KeyResponse { keys, cursor }))
    }

    async fn drop(&mut self, bucket: Resource<OpenBucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl batch::Host for HostState {
    async fn get_many(
        &mut self,
        bucket: Resource<OpenBucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        let admitted = admitted!(self.admit(&bucket, Access::Read, key_lengths(&keys)));
        let values = admitted.answer(admitted.bucket.get_many(&keys)).await;
        let pair = |(key, value): (String, Option<Vec<u8>>)| value.map(|value| (key, value));
        Ok(values.map(|values| keys.into_iter().zip(values).map(pair).collect()))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<OpenBucket>,
        values: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let lengths = values.iter().map(|(key, value)| (key.len(), value.len()));
        let admitted = admitted!(self.admit(&bucket, Access::Write, lengths));
        Ok(admitted.answer(admitted.bucket.set_many(&values)).await)
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<OpenBucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let admitted = admitted!(self.admit(&bucket, Access::Write, key_lengths(&keys)));
        Ok(admitted.answer(admitted.bucket.delete_many(&keys)).await)
    }
}

/// Adds both interfaces to a linker.
pub(super) fn add_imports(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    batch::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}
