//! Writes the state of plugins before the record that tells of it, and reads it back.
//!
//! Comes in: the state of chains at the end of a generation. Goes out: what the record says of it ([`PartitionState`]), once the
//! bytes are in the store; and on the way back the bytes, checked. Promises: what a record names was written before and is never
//! written again; state that did not change is not written anew; small ones of a commit share an object.
//!
//! An object whose record never came is removed by its writer, where that lives to hear that the record was refused, and else by
//! the next one who claims (`leftovers.rs`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::{
    BTreeMap, CommitContext, LedgerWriter, PipelineError, Recovery, SourcePartition, Store,
    ledger::{
        record::Partition,
        states::{self, PartitionState, StateRef},
    },
};
use crate::{
    batch::{ChainState, PluginState},
    store::Path,
};

/// State of one commit goes into one object up to so many bytes: one request instead of many, and little is kept longer than it
/// is needed, since a partition without records keeps the whole object.
const OBJECT_BYTES: usize = 1 << 20;

/// The state of a commit, in the store.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// What the record says.
    pub(super) states: Vec<PartitionState>,
    /// The objects that were written for it.
    objects: Vec<Path>,
}

impl Written {
    /// Removes what no record tells of.
    pub(super) async fn give_up(self, store: &Store) {
        if let Err(error) = store.remove_all(&self.objects).await {
            tracing::warn!(error = %error.full_message(), "state of plugins that no record tells of could not be removed");
        }
    }
}

/// Writes the state of the chains of a generation.
pub(super) async fn write(
    context: &CommitContext,
    ledger: &LedgerWriter,
    chains: Vec<ChainState>,
) -> Result<Written, PipelineError> {
    let mut partitions: BTreeMap<SourcePartition, Vec<ChainState>> = BTreeMap::new();
    for chain in chains {
        partitions.entry(chain.partition.clone()).or_default().push(chain);
    }
    let mut packer = Packer::new(context);
    let mut written = Vec::with_capacity(partitions.len());
    for (partition, chains) in partitions {
        let known = ledger.state_of(&partition).await;
        let is_new = |state: &&StateRef| chains.iter().any(|chain| *chain.dataset == *state.dataset);
        let mut plugins: Vec<StateRef> = known.iter().filter(|state| !is_new(state)).cloned().collect();
        for ChainState { dataset, plugins: states, .. } in &chains {
            for state in states {
                plugins.push(packer.add(dataset, state, &known).await?);
            }
        }
        if plugins != known {
            let Partition { topic, partition } = Partition::from(&partition);
            written.push(PartitionState { topic, partition, plugins });
        }
    }
    packer.end_object().await?;
    for state in written.iter_mut().flat_map(|state| &mut state.plugins) {
        if let Some(bytes) = packer.lengths.get(&state.object) {
            state.object_bytes = *bytes;
        }
    }
    Ok(Written { states: written, objects: packer.objects })
}

/// Brings states together into objects.
struct Packer<'a> {
    /// Where they go.
    context: &'a CommitContext,
    /// Name of the next object.
    name: String,
    /// What it has so far.
    bytes: BytesMut,
    /// Objects that are written, with their lengths.
    lengths: BTreeMap<String, u64>,
    /// The same as paths.
    objects: Vec<Path>,
}

impl<'a> Packer<'a> {
    /// Nothing yet.
    fn new(context: &'a CommitContext) -> Self {
        let (bytes, lengths, objects) = (BytesMut::new(), BTreeMap::new(), Vec::new());
        Self { context, name: new_name(&context.writer_mark), bytes, lengths, objects }
    }

    /// Takes a state in, unless it is the known one.
    async fn add(&mut self, dataset: &str, state: &PluginState, known: &[StateRef]) -> Result<StateRef, PipelineError> {
        let PluginState { plugin, component, bytes } = state;
        let mut reference = StateRef {
            dataset: dataset.to_owned(),
            plugin: plugin.to_string(),
            component: component.clone(),
            object: String::new(),
            object_bytes: 0,
            from: 0,
            bytes: bytes.len() as u64,
            sha256: digest(bytes),
        };
        let is_same = |known: &&StateRef| {
            (&known.dataset, &known.plugin) == (&reference.dataset, &reference.plugin)
                && (known.bytes, &known.sha256) == (reference.bytes, &reference.sha256)
        };
        if let Some(same) = known.iter().find(is_same) {
            let StateRef { object, object_bytes, from, .. } = same.clone();
            return Ok(StateRef { object, object_bytes, from, ..reference });
        }
        if !bytes.is_empty() {
            if self.bytes.len() + bytes.len() > OBJECT_BYTES {
                self.end_object().await?;
            }
            reference.object.clone_from(&self.name);
            reference.from = self.bytes.len() as u64;
            self.bytes.extend_from_slice(bytes);
        }
        Ok(reference)
    }

    /// Writes the object that was begun.
    async fn end_object(&mut self) -> Result<(), PipelineError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let name = std::mem::replace(&mut self.name, new_name(&self.context.writer_mark));
        let bytes = std::mem::take(&mut self.bytes).freeze();
        let path = self.context.store.own_name(&states::name(&name));
        self.lengths.insert(name, bytes.len() as u64);
        self.context.store.put(&path, bytes).await?;
        self.objects.push(path);
        Ok(())
    }
}

/// A name that no other object has, and that tells whose it is.
fn new_name(mark: &str) -> String {
    format!("{}-{mark}.bin", uuid::Uuid::now_v7())
}

/// SHA-256 as hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Recovery {
    /// The state that a record tells of, as the plugins gave it.
    pub async fn read_states(
        &self,
        partition: &SourcePartition,
        states: &[StateRef],
    ) -> Result<Vec<PluginState>, PipelineError> {
        let mut read = Vec::with_capacity(states.len());
        for state in states {
            let bytes = self.read_state(partition, state).await?;
            read.push(PluginState { plugin: Arc::from(&*state.plugin), component: state.component.clone(), bytes });
        }
        Ok(read)
    }

    /// The same of one plugin.
    async fn read_state(&self, partition: &SourcePartition, state: &StateRef) -> Result<Bytes, PipelineError> {
        if state.bytes == 0 {
            return Ok(Bytes::new());
        }
        let path = self.store.own_name(&states::name(&state.object));
        // Asked first: a stretch behind the end of an object is an error of another kind in each store.
        match self.store.length(&path).await? {
            None => return Err(self.gone(partition, state, &path).await?),
            Some(length) if length != state.object_bytes => {
                return Err(damaged(partition, state, &path)
                    .because(format!("it has {length} bytes where {} were written", state.object_bytes)));
            }
            Some(_) => {}
        }
        match self.store.read_range(&path, state.from..state.from + state.bytes).await? {
            None => Err(self.gone(partition, state, &path).await?),
            Some(bytes) if digest(&bytes) != state.sha256 => {
                Err(damaged(partition, state, &path).because("its bytes are not those that were written"))
            }
            Some(bytes) => Ok(bytes),
        }
    }

    /// Why an object is not there: another one has the partition and has gone on, or somebody has deleted it.
    async fn gone(
        &self,
        partition: &SourcePartition,
        state: &StateRef,
        path: &Path,
    ) -> Result<PipelineError, PipelineError> {
        let known = self.writer.ledger.look().await?;
        let position = known.partitions.get(&Partition::from(partition));
        let owner = position.and_then(|position| position.owner.as_deref());
        Ok(if owner == Some(&*self.writer.writer) {
            damaged(partition, state, path).because("it is not there")
        } else {
            PipelineError::restart(format!("{partition} was claimed by another writer before its state was read"))
        })
    }
}

/// The error for state that is not what was written.
fn damaged(partition: &SourcePartition, state: &StateRef, path: &Path) -> PipelineError {
    PipelineError::stop(format!(
        "the state of plugin {} for {partition} cannot be read from {path}, and without it rows would be lost. Restore the object \
         from a backup or a version of the bucket; nothing is written until then. A pipeline with another `name` starts without \
         state, and begins where its consumer group or `source.start` says",
        state.plugin
    ))
}

#[cfg(test)]
mod tests;
