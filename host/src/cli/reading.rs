//! Records of a source, decoded as a pipeline would: for `schema infer`, `plugin test` and `plugin bench`. Nothing is committed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    batch::{DecodedBatch, Envelope, RawBatch},
    config::{DecodeConfig, Delivery, ErrorHandling, RunConfig, SourceConfig},
    decode::{Decoder, Registry},
    error::PipelineError,
    memory::MemoryBudget,
    source::{self, LaneContext, SourceEvent},
    telemetry::metrics::Metrics,
};

/// Bytes that may be read ahead.
const MEMORY_BYTES: usize = 128 << 20;

/// A source that is read, once or again; what was learned of the records stays.
pub(super) struct Reading {
    /// How values become rows.
    decode: DecodeConfig,
    /// Where schemas of values come from.
    registry: Option<Registry>,
    /// A decoder for each dataset.
    pub(super) decoders: BTreeMap<Arc<str>, Decoder>,
}

/// What came of a batch of records.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Number of them.
    pub(super) count: u64,
    /// Their rows, if there are any.
    pub(super) batch: Option<DecodedBatch>,
    /// Those that are no rows.
    pub(super) refused: Vec<Refused>,
}

/// Records that were refused for one reason.
#[derive(Debug)]
pub(super) struct Refused {
    /// Stable and of few values.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
    /// Their offsets.
    pub(super) records: Vec<i64>,
}

impl Reading {
    /// Nothing read yet.
    pub(super) fn new(decode: DecodeConfig) -> Result<Self, PipelineError> {
        let registry = decode.schemas.registry.as_ref();
        let registry =
            registry.map(|registry| Registry::new(registry, CancellationToken::new(), metrics())).transpose()?;
        Ok(Self { decode, registry, decoders: BTreeMap::new() })
    }

    /// Reads records up to a limit, from the beginning; gives their number.
    pub(super) async fn read(
        &mut self,
        source: &SourceConfig,
        limit: u64,
        mut take: impl FnMut(Records) -> Result<(), PipelineError>,
    ) -> Result<u64, PipelineError> {
        // A topic that is missing is waited for elsewhere; here nobody wants to.
        source::check(source).await?;
        let mut stream = source::start(source, context())?;
        let mut count = 0;
        while let Some(event) = stream.events.recv().await {
            let records = match event {
                SourceEvent::Batch(raw) => self.decode(&raw).await?,
                SourceEvent::Refused { raw, code, message } => {
                    let records = raw.envelope.offsets().values().to_vec();
                    let refused = vec![Refused { code: code.to_owned(), message, records }];
                    Records { count: raw.envelope.len() as u64, batch: None, refused }
                }
                // Nothing is committed here.
                SourceEvent::Revoked { release, .. } => {
                    let _ = release.send(());
                    continue;
                }
                SourceEvent::Failed(error) => return Err(error),
                SourceEvent::End => break,
                SourceEvent::Assigned { .. } | SourceEvent::Missing(_) | SourceEvent::Lost { .. } => continue,
            };
            count += records.count;
            take(records)?;
            if count >= limit {
                stream.control.stop();
                break;
            }
        }
        stream.control.close().await;
        Ok(count)
    }

    /// Decodes a batch.
    async fn decode(&mut self, raw: &RawBatch) -> Result<Records, PipelineError> {
        let decoder = match self.decoders.entry(Arc::clone(&raw.dataset)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Decoder::new(&self.decode)?),
        };
        let decoded = match (&raw.rows, &self.registry) {
            (Some(rows), _) => decoder.decode_rows(&raw.envelope, rows),
            (None, None) => decoder.decode(&raw.envelope),
            (None, Some(registry)) => {
                decoder.prepare(registry, &raw.envelope).await?;
                decoder.decode(&raw.envelope)
            }
        };
        let refused = decoded.rejected.into_iter().map(|rejection| Refused {
            records: offsets(&raw.envelope, &rejection.rows),
            code: rejection.code,
            message: rejection.message,
        });
        Ok(Records { count: raw.envelope.len() as u64, batch: decoded.batch, refused: refused.collect() })
    }
}

/// The offsets of some records.
pub(super) fn offsets(envelope: &Envelope, records: &[u32]) -> Vec<i64> {
    records.iter().filter_map(|record| envelope.offsets().values().get(*record as usize).copied()).collect()
}

/// Metrics that nobody reads.
fn metrics() -> Metrics {
    Metrics::new("reading", "default", "file", "none")
}

/// The least that a source works with.
fn context() -> LaneContext {
    let budget = MemoryBudget::new(MEMORY_BYTES);
    LaneContext {
        pipeline: "reading".into(),
        lane: 0,
        lanes: 1,
        run: RunConfig {
            delivery: Delivery::AtLeastOnce,
            commit_interval: Duration::from_secs(60),
            commit_interval_batches: None,
            target_file_size_bytes: MEMORY_BYTES,
            target_file_rows: None,
            open_files_max: 1,
            memory_bytes: MEMORY_BYTES,
            lanes: Some(1),
            error_handling: ErrorHandling::Ignore,
            batches_max: None,
            until_end: true,
            shutdown_timeout: Duration::from_secs(1),
        },
        budget,
        metrics: metrics(),
        batches_left: Arc::new(AtomicI64::new(i64::MAX)),
        moves: Arc::default(),
        takes_over: false,
        io: tokio::runtime::Handle::current(),
    }
}
