//! Files of newline-delimited records, and standard input.
//!
//! Each file is a source partition: its path, partition 0, and the number of the line, from 0, as offset. The dataset
//! is the pipeline's name. Lines end with `\n` or `\r\n`; empty lines are passed over and counted. Files end by
//! themselves, so a file source always reads to the end. Under exactly once the ledger says which lines are done, and a
//! restart goes on behind them; at least once a restart reads from the start.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Control, EVENTS_MAX, LaneContext, SourceControl, SourceEvent, SourceStream,
    envelope::{EnvelopeBuilder, Record},
};
use crate::{
    checkpoint::{CheckpointDelta, OffsetRange, SourcePartition},
    config::{Delivery, FileConfig, SourceConfig},
    error::PipelineError,
};

/// Longest line: what is longer is hardly a record, and would fill the memory.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Lines of standard input that may wait: a batch's worth, so that reading goes on while one is built.
const LINES_WAITING_MAX: usize = 8_192;

/// How often a waiting reader looks up.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks the reader to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct FileControl(Arc<AtomicBool>);

impl FileControl {
    /// Asks the reader to stop.
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The files of a configuration, each once, in order.
pub(super) fn list(config: &FileConfig) -> Result<Vec<String>, PipelineError> {
    let mut files = Vec::new();
    for pattern in &config.paths {
        if pattern == "-" {
            files.push(pattern.clone());
            continue;
        }
        let found = glob::glob(pattern).map_err(|error| {
            PipelineError::stop(format!("source.paths: {pattern:?} is not a pattern")).because(error)
        })?;
        let before = files.len();
        for path in found {
            let path = path.map_err(|error| {
                PipelineError::stop(format!("source.paths: {pattern:?}: a folder cannot be read")).because(error)
            })?;
            if path.is_file() {
                files.push(path.display().to_string());
            }
        }
        if files.len() == before {
            return Err(PipelineError::stop(format!("source.paths: no file matches {pattern:?}")));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Reads the files of one lane on a thread of its own.
pub(super) fn start(
    files: &FileConfig,
    config: &SourceConfig,
    context: LaneContext,
) -> Result<SourceStream, PipelineError> {
    let mine: Vec<String> = list(files)?
        .into_iter()
        .enumerate()
        .filter(|(at, _)| at % context.lanes == context.lane)
        .map(|(_, file)| file)
        .collect();
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let control = FileControl::default();
    let reader = Reader {
        rows_max: config.batch_rows_max,
        batch_timeout: config.batch_timeout,
        context,
        sender,
        control: control.clone(),
        ranges: BTreeMap::new(),
    };
    reader.spawn(mine, true);
    Ok(SourceStream { events, control: SourceControl(Control::File(control)) })
}

/// Reads recorded lines once more.
pub(super) fn read_again(
    config: &SourceConfig,
    ranges: &CheckpointDelta,
    context: LaneContext,
) -> mpsc::Receiver<SourceEvent> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let files = ranges.iter().map(|(partition, _)| partition.topic.to_string()).collect();
    let reader = Reader {
        rows_max: config.batch_rows_max,
        batch_timeout: config.batch_timeout,
        context,
        sender,
        control: FileControl::default(),
        ranges: ranges.iter().map(|(partition, range)| (partition.topic.to_string(), range)).collect(),
    };
    reader.spawn(files, false);
    events
}

/// Reads files one after the other.
struct Reader {
    /// Most records in a batch.
    rows_max: usize,
    /// A batch that is not full goes on after this.
    batch_timeout: Duration,
    /// The lane.
    context: LaneContext,
    /// To the lane.
    sender: mpsc::Sender<SourceEvent>,
    /// From the lane.
    control: FileControl,
    /// The lines that are wanted of each file; all where nothing is said.
    ranges: BTreeMap<String, OffsetRange>,
}

impl Reader {
    /// Reads files on a thread of its own.
    fn spawn(mut self, files: Vec<String>, are_claimed: bool) {
        tokio::task::spawn_blocking(move || {
            let result = if are_claimed { self.claim(&files) } else { Ok(()) };
            let last = match result.and_then(|()| self.read_all(&files)) {
                Ok(()) => SourceEvent::End,
                Err(error) => SourceEvent::Failed(error),
            };
            // The lane may be gone already.
            let _ = self.sender.blocking_send(last);
        });
    }

    /// Under exactly once: has the lane claim the files, and passes over the lines that are done.
    fn claim(&mut self, files: &[String]) -> Result<(), PipelineError> {
        if self.context.run.delivery != Delivery::ExactlyOnce || files.is_empty() {
            return Ok(());
        }
        let partitions = files.iter().map(|file| SourcePartition::new(file.as_str(), 0)).collect();
        let (begin, answer) = oneshot::channel();
        let ended = || PipelineError::restart("the lane ended before the files were claimed");
        self.sender
            .blocking_send(SourceEvent::Assigned { partitions, topic_ids: BTreeMap::new(), begin })
            .map_err(|_| ended())?;
        let positions = answer.blocking_recv().map_err(|_| ended())?;
        self.ranges = positions
            .into_iter()
            .map(|(partition, from)| (partition.topic.to_string(), OffsetRange { from, to: i64::MAX }))
            .collect();
        Ok(())
    }

    /// Reads every file to its end.
    fn read_all(&mut self, files: &[String]) -> Result<(), PipelineError> {
        for file in files {
            let failed =
                |error: std::io::Error| PipelineError::stop(format!("{file}: the file cannot be read")).because(error);
            let go_on = if file == "-" {
                let lines = lines_of_standard_input().map_err(failed)?;
                let wait = self.batch_timeout;
                self.read(file, |line| match lines.recv_timeout(wait) {
                    Ok(next) => {
                        *line = next?;
                        Ok(Line::Read)
                    }
                    Err(RecvTimeoutError::Timeout) => Ok(Line::NoneYet),
                    Err(RecvTimeoutError::Disconnected) => Ok(Line::End),
                })?
            } else {
                let mut input = BufReader::with_capacity(1 << 20, File::open(file).map_err(failed)?);
                self.read(file, |line| next_line(&mut input, line))?
            };
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// Reads one file; `false` when the lane wants no more.
    fn read(
        &mut self,
        file: &str,
        mut next: impl FnMut(&mut Vec<u8>) -> std::io::Result<Line>,
    ) -> Result<bool, PipelineError> {
        let mut builder = EnvelopeBuilder::new(file.into(), Arc::clone(&self.context.pipeline));
        let (mut line, mut number, mut began) = (Vec::new(), 0i64, Instant::now());
        let wanted = self.ranges.get(file).copied().unwrap_or(OffsetRange { from: 0, to: i64::MAX });
        while number < wanted.to {
            let answer = next(&mut line).map_err(|error| {
                PipelineError::stop(format!("{file}: line {}: the file cannot be read", number + 1)).because(error)
            })?;
            match answer {
                Line::End => break,
                Line::NoneYet => {}
                Line::Read if number < wanted.from => number += 1,
                Line::Read if line.len() as u64 > LINE_BYTES_MAX => {
                    return Err(PipelineError::stop(format!(
                        "{file}: line {} is longer than {} MiB: is this newline-delimited JSON?",
                        number + 1,
                        LINE_BYTES_MAX >> 20
                    )));
                }
                Line::Read => {
                    let value = trimmed(&line);
                    if value.is_empty() {
                        builder.cover(0, number, number + 1);
                    } else {
                        builder.push(Record {
                            partition: 0,
                            offset: number,
                            timestamp_ms: None,
                            key: None,
                            value: Some(value),
                        });
                    }
                    number += 1;
                }
            }
            let is_due = builder.is_full(self.rows_max) || began.elapsed() >= self.batch_timeout;
            if is_due && !builder.is_empty() {
                if !self.send(&mut builder)? {
                    return Ok(false);
                }
                began = Instant::now();
            }
            if self.control.is_stopped() {
                return Ok(false);
            }
        }
        if number < wanted.from {
            return Err(PipelineError::stop(format!(
                "{file}: the ledger is at line {} and the file ends at line {number}: it was replaced or cut. To read it from \
                 the start, give it another name, or the pipeline another `name` (a ledger of its own)",
                wanted.from
            )));
        }
        if builder.is_empty() { Ok(true) } else { self.send(&mut builder) }
    }

    /// Sends a batch once there is room for it; `false` when the lane wants no more.
    fn send(&self, builder: &mut EnvelopeBuilder) -> Result<bool, PipelineError> {
        let waiting = Instant::now();
        while self.context.budget.is_exhausted() && !self.control.is_stopped() {
            std::thread::sleep(PAUSE);
        }
        if waiting.elapsed() > PAUSE {
            self.context.metrics.waited("memory", waiting.elapsed().as_secs_f64());
        }
        if self.control.is_stopped() || !self.context.take_batch() {
            return Ok(false);
        }
        let batch = builder.finish(&self.context.budget)?;
        Ok(self.sender.blocking_send(SourceEvent::Batch(batch)).is_ok())
    }
}

/// What a look for the next line gave.
enum Line {
    /// One.
    Read,
    /// None so far; more may come.
    NoneYet,
    /// No more.
    End,
}

/// The next line of a file, at most one byte longer than is allowed.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    let length = input.take(LINE_BYTES_MAX + 1).read_until(b'\n', line)?;
    Ok(if length == 0 { Line::End } else { Line::Read })
}

/// Standard input, read on a thread of its own: it may pause for ever, and a batch that is not full goes on all the same.
fn lines_of_standard_input() -> std::io::Result<Receiver<std::io::Result<Vec<u8>>>> {
    let (sender, lines) = std::sync::mpsc::sync_channel(LINES_WAITING_MAX);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let next = match next_line(&mut input, &mut line) {
                Ok(Line::Read) => Ok(line),
                Ok(_) => break,
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            if sender.send(next).is_err() || failed {
                break;
            }
        }
    })?;
    Ok(lines)
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;
    use crate::{
        config::{Delivery, ErrorHandling, RunConfig, SourceKind},
        memory::MemoryBudget,
        telemetry::metrics::Metrics,
    };

    /// A lane's context.
    fn context(lane: usize, lanes: usize, batches: i64) -> LaneContext {
        LaneContext {
            pipeline: "orders".into(),
            lane,
            lanes,
            run: RunConfig {
                delivery: Delivery::AtLeastOnce,
                commit_interval: Duration::from_secs(60),
                commit_interval_batches: None,
                target_file_size_bytes: 1 << 27,
                target_file_rows: None,
                open_files_max: 10,
                memory_bytes: 1 << 20,
                lanes: None,
                error_handling: ErrorHandling::Log,
                batches_max: None,
                until_end: true,
                shutdown_timeout: Duration::from_secs(1),
            },
            budget: MemoryBudget::new(1 << 20),
            metrics: Metrics::detached(),
            batches_left: Arc::new(AtomicI64::new(batches)),
            moves: Arc::default(),
        }
    }

    /// Everything that a source of these paths gives: file, offset and value; and how it ended.
    async fn read(paths: Vec<String>, context: LaneContext) -> (Vec<(String, i64, String)>, String) {
        let config = FileConfig { paths };
        let source = SourceConfig {
            kind: SourceKind::File(config.clone()),
            batch_rows_max: 2,
            batch_timeout: Duration::from_secs(9),
        };
        let mut stream = start(&config, &source, context).unwrap();
        let mut found = Vec::new();
        loop {
            match stream.events.recv().await.unwrap() {
                SourceEvent::Batch(batch) => {
                    assert!(batch.envelope.len() <= 2);
                    for row in 0..batch.envelope.len() {
                        let record = batch.envelope.record(row).unwrap();
                        let name = record.topic.rsplit('/').next().unwrap().to_owned();
                        found.push((name, record.offset, String::from_utf8(record.value.unwrap()).unwrap()));
                    }
                }
                SourceEvent::End => return (found, "end".to_owned()),
                SourceEvent::Failed(error) => return (found, error.full_message()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Scenario: two files with Windows line ends, an empty line and no end of the last line, over two lanes.
    /// Guarantees: each line once with its number; each file in one lane.
    #[tokio::test]
    async fn every_line_once_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.ndjson"), "1\r\n\n2\n3").unwrap();
        std::fs::write(folder.path().join("b.ndjson"), "4\n").unwrap();
        let pattern = format!("{}/*.ndjson", folder.path().display());
        let (first, end) = read(vec![pattern.clone()], context(0, 2, i64::MAX)).await;
        let expected = [("a.ndjson", 0, "1"), ("a.ndjson", 2, "2"), ("a.ndjson", 3, "3")];
        assert_eq!(first, expected.map(|(file, line, value)| (file.to_owned(), line, value.to_owned())));
        assert_eq!(end, "end");
        let (second, _) = read(vec![pattern.clone(), pattern.clone()], context(1, 2, i64::MAX)).await;
        assert_eq!(second, [("b.ndjson".to_owned(), 0, "4".to_owned())]);
        let (limited, _) = read(vec![pattern], context(0, 2, 1)).await;
        assert_eq!(limited.len(), 2, "--max-batches 1");
    }

    #[tokio::test]
    async fn a_pattern_without_a_file_is_named() {
        let error = list(&FileConfig { paths: vec!["no/such/*.ndjson".to_owned()] }).unwrap_err();
        assert_eq!(error.to_string(), "source.paths: no file matches \"no/such/*.ndjson\"");
    }
}
