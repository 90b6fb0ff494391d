//! One stream that is read by id: where it goes on, what of it is new, and whether anything of it is missing.

use std::time::{Duration, Instant};

use redis::Value;

use super::{
    super::LaneContext,
    appetite::Appetite,
    client::Server,
    fault::Fault,
    id::StreamId,
    reply::{self, Entry, StreamInfo},
};
use crate::{
    checkpoint::SourcePartition,
    config::{RedisConfig, RedisStart},
    error::PipelineError,
};

/// A stream in which nothing was new is asked again after this, doubled each time.
const IDLE_MIN: Duration = Duration::from_millis(5);

/// A stream is asked at least this often: rows become visible with a commit, seconds later, and most of many streams are quiet.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How often it is asked how long a stream is and whether it still is what it was.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// An entry with its offset.
pub(super) type Fetched = (i64, Entry);

/// A stream that is read.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its key, partition 0.
    pub(super) partition: SourcePartition,
    /// When it is asked again.
    pub(super) due: Instant,
    /// Where the ledger said that it goes on.
    position: Option<i64>,
    /// The last entry that was read; `None` until that is known.
    cursor: Option<StreamId>,
    /// What `XREAD` begins behind: the cursor, or the end of the stream where that is before it.
    read_from: StreamId,
    /// How many entries to ask for.
    appetite: Appetite,
    /// The pause when nothing is new.
    idle: Duration,
    /// The connection over which it was looked at last; 0 where it has to be looked at.
    looked_over: u64,
    /// When it was looked at last.
    looked_at: Instant,
    /// Whether it ends before what was read of it; told once.
    is_short: bool,
    /// How many entries were ever added up to the cursor, where that is known.
    index: Option<u64>,
    /// When the last question was asked to which there was nothing new.
    empty_at: Option<Instant>,
}

/// What Redis says about a stream; `None` where it is not there.
pub(super) async fn info(server: &Server, key: &str) -> Result<Option<StreamInfo>, Fault> {
    let mut command = redis::cmd("XINFO");
    command.arg("STREAM").arg(key);
    match server.ask(&command, &format!("{key}: asking about the stream")).await {
        Ok(value) => StreamInfo::parse(value).map(Some).map_err(Fault::Refused),
        Err(Fault::NoKey) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The last entry that a group was given, if there is such a group, and how many of those are not acknowledged.
async fn delivered(server: &Server, key: &str, group: &str) -> Result<Option<(StreamId, i64)>, Fault> {
    let mut command = redis::cmd("XINFO");
    command.arg("GROUPS").arg(key);
    let groups = match server.ask(&command, &format!("{key}: asking for the consumer group")).await {
        Ok(Value::Array(groups)) => groups,
        Ok(_) | Err(Fault::NoKey) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    for facts in groups.into_iter().map(reply::map) {
        if facts.get("name").and_then(reply::text).as_deref() == Some(group) {
            let last = facts.get("last-delivered-id").and_then(reply::text).map(|text| text.parse::<StreamId>());
            let pending = facts.get("pending").and_then(reply::number).unwrap_or(0);
            return last.transpose().map(|last| last.map(|last| (last, pending))).map_err(Fault::Refused);
        }
    }
    Ok(None)
}

impl Stream {
    /// Nothing is read of it yet.
    pub(super) fn new(partition: SourcePartition, position: Option<i64>, rows_max: usize) -> Self {
        let now = Instant::now();
        Self {
            partition,
            due: now,
            position,
            cursor: None,
            read_from: StreamId::ZERO,
            appetite: Appetite::new(rows_max),
            idle: Duration::ZERO,
            looked_over: 0,
            looked_at: now,
            is_short: false,
            index: None,
            empty_at: None,
        }
    }

    /// Whether it was read to an end of which somebody was told at a time: to that entry, or to where there was nothing more.
    pub(super) fn has_read(&self, end: StreamId, asked: Instant) -> bool {
        self.cursor.is_some_and(|cursor| cursor >= end) || self.empty_at.is_some_and(|at| at >= asked)
    }

    /// What is new.
    pub(super) async fn fetch(
        &mut self,
        server: &Server,
        config: &RedisConfig,
        context: &LaneContext,
    ) -> Result<Vec<Fetched>, Fault> {
        if self.cursor.is_none() || self.looked_over != server.generation() || self.looked_at.elapsed() > LOOK_INTERVAL
        {
            self.look(server, config, context).await?;
        }
        let (asked, count) = (Instant::now(), self.appetite.count());
        let key = &*self.partition.topic;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(count).arg("STREAMS").arg(key).arg(self.read_from.to_string());
        let answer = server.ask(&command, &format!("{key}: reading the stream")).await?;
        let entries = reply::of_stream(answer).map_err(Fault::Refused)?;
        if self.looked_over != server.generation() {
            // The answer may be of a server that knows less: looked at first, then asked again. Reading changes nothing.
            self.due = Instant::now();
            return Ok(Vec::new());
        }
        let fetched = self.take(entries).map_err(Fault::Refused)?;
        if fetched.is_empty() {
            self.empty_at = Some(asked);
            self.idle = (self.idle * 2).clamp(IDLE_MIN, IDLE_MAX);
        } else {
            self.idle = if fetched.len() < count { IDLE_MIN } else { Duration::ZERO };
        }
        self.due = Instant::now() + self.idle;
        Ok(fetched)
    }

    /// Entries that came, with their offsets.
    fn take(&mut self, entries: Vec<Entry>) -> Result<Vec<Fetched>, PipelineError> {
        let key = &*self.partition.topic;
        let mut fetched = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for entry in entries {
            if let Some(cursor) = self.cursor.filter(|cursor| entry.id <= *cursor) {
                return Err(PipelineError::stop(format!(
                    "{key}: the entry {} came after entries up to {cursor} were read: the stream was deleted and made anew with its own \
                     ids, or a server took over that had lost entries and whose clock is behind. It cannot be recorded exactly once. To \
                     read the stream as it is now, give the pipeline another `name` (a ledger of its own)",
                    entry.id
                )));
            }
            bytes += entry.bytes();
            fetched.push((entry.id.offset_in(key)?, entry));
            self.cursor = fetched.last().map(|(_, entry)| entry.id);
        }
        if let (Some(cursor), false) = (self.cursor, fetched.is_empty()) {
            self.read_from = cursor;
        }
        self.appetite.ate(fetched.len(), bytes);
        self.index = self.index.map(|index| index + fetched.len() as u64);
        Ok(fetched)
    }

    /// Looks whether the stream still is what it was, and what it has lost.
    async fn look(&mut self, server: &Server, config: &RedisConfig, context: &LaneContext) -> Result<(), Fault> {
        let generation = server.generation();
        let key = &*self.partition.topic;
        let info = info(server, key).await?;
        if self.cursor.is_none() {
            self.cursor = Some(self.begin(server, config, context, info.as_ref()).await?);
        }
        let cursor = self.cursor.unwrap_or_default();
        let last = info.map_or(StreamId::ZERO, |info| info.last);
        self.read_from = cursor.min(last);
        if last < cursor && !self.is_short {
            tracing::warn!(pipeline = %context.pipeline, lane = context.lane, stream = key, read = %cursor, end = %last,
                "the stream ends before what was read of it (its server lost entries, or it was deleted): new entries are awaited behind what \
                 was read");
        }
        self.is_short = last < cursor;
        if let Some(info) = info {
            self.compare(&info, cursor, context);
        }
        self.looked_at = Instant::now();
        // A connection that was made meanwhile may be to another server.
        self.looked_over = if generation == server.generation() { generation } else { 0 };
        Ok(())
    }

    /// What was trimmed before it was read, and what is still to be read.
    fn compare(&mut self, info: &StreamInfo, cursor: StreamId, context: &LaneContext) {
        let missing = self.note_trimmed(info, cursor);
        let key = &*self.partition.topic;
        if let Some(missing) = missing {
            context.metrics.gap(key, missing);
            tracing::warn!(pipeline = %context.pipeline, lane = context.lane, stream = key, missing, read = %cursor,
                "the stream was trimmed before its entries were read (at least so many); reading goes on behind them");
        }
        let lag =
            if info.last <= cursor { Some(0) } else { self.index.and_then(|index| info.added?.checked_sub(index)) };
        if let Some(lag) = lag {
            context.metrics.consumer_lag(key, 0, lag);
        }
    }

    /// How many entries are known to have been trimmed unread since the last look.
    fn note_trimmed(&mut self, info: &StreamInfo, cursor: StreamId) -> Option<u64> {
        let mut missing = None;
        match (self.index, info.trimmed()) {
            (Some(index), Some(trimmed)) if trimmed > index => {
                missing = Some(trimmed - index);
                self.index = Some(trimmed);
            }
            (Some(_), None) => self.index = None,
            // Trimmed up to behind the cursor, as far as can be seen by the first entry alone.
            (None, Some(trimmed)) if trimmed > 0 && self.looked_over == 0 && self.position.is_some() => {
                missing = info.first.filter(|first| *first > cursor && cursor < info.last).map(|_| 1);
            }
            _ => {}
        }
        if info.last <= cursor {
            self.index = info.added;
        } else if cursor == StreamId::ZERO && self.index.is_none() {
            self.index = info.trimmed();
        }
        missing
    }

    /// Where it begins: what the ledger says, else the group, else what is configured.
    async fn begin(
        &self,
        server: &Server,
        config: &RedisConfig,
        context: &LaneContext,
        info: Option<&StreamInfo>,
    ) -> Result<StreamId, Fault> {
        let key = &*self.partition.topic;
        if let Some(position) = self.position {
            return Ok(StreamId::before_offset(position));
        }
        if let Some(group) = &config.consumer_group
            && let Some((last, pending)) = delivered(server, key, group).await?
        {
            tracing::info!(pipeline = %context.pipeline, lane = context.lane, stream = key, group, id = %last, pending,
                "the ledger does not know this stream: it goes on where the consumer group is; entries that are pending in the group are not read");
            return Ok(last);
        }
        Ok(match config.start {
            RedisStart::Earliest => StreamId::ZERO,
            RedisStart::Latest => info.map_or(StreamId::ZERO, |info| info.last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that goes on at an offset.
    fn stream(cursor: &str) -> Stream {
        let cursor: StreamId = cursor.parse().unwrap();
        let position = cursor.offset().map(|offset| offset + 1);
        let mut stream = Stream::new(SourcePartition::new("orders", 0), position, 100);
        stream.cursor = Some(cursor);
        stream
    }

    /// An entry.
    fn entry(id: &str) -> Entry {
        Entry { id: id.parse().unwrap(), fields: Some(Vec::new()) }
    }

    /// What Redis says.
    fn info(length: u64, first: &str, last: &str, added: u64) -> StreamInfo {
        let id = |text: &str| text.parse().unwrap();
        StreamInfo { length, first: Some(id(first)), last: id(last), added: Some(added), has_holes: false }
    }

    #[test]
    fn an_entry_below_what_was_read_is_an_error_and_not_a_row() {
        let mut stream = stream("5-1");
        assert_eq!(stream.take(vec![entry("5-2"), entry("6-0")]).unwrap().len(), 2);
        let message = stream.take(vec![entry("5-9")]).unwrap_err().to_string();
        assert!(message.starts_with("orders: the entry 5-9 came after entries up to 6-0 were read"), "{message}");
    }

    #[test]
    fn entries_that_were_trimmed_unread_are_counted() {
        let mut stream = stream("5-0");
        let cursor = stream.cursor.unwrap();
        assert_eq!(stream.note_trimmed(&info(2, "4-0", "5-0", 10), cursor), None);
        assert_eq!(stream.index, Some(10));
        stream.looked_over = 1;
        // Ten more came, and only the last three of them are left.
        assert_eq!(stream.note_trimmed(&info(3, "8-0", "9-0", 20), cursor), Some(7));
        assert_eq!(stream.note_trimmed(&info(3, "8-0", "9-0", 20), cursor), None, "told once");
        let holes = StreamInfo { has_holes: true, ..info(3, "8-0", "9-0", 20) };
        assert_eq!(stream.note_trimmed(&holes, cursor), None);
        assert_eq!(stream.index, None, "numbers tell nothing once entries were deleted one by one");
    }

    #[test]
    fn after_a_restart_at_least_one_is_known_to_be_missing() {
        let mut known = stream("5-0");
        let cursor = known.cursor.unwrap();
        assert_eq!(known.note_trimmed(&info(3, "8-0", "9-0", 20), cursor), Some(1));
        assert_eq!(stream("5-0").note_trimmed(&info(3, "5-0", "9-0", 20), cursor), None);
        let mut new = stream("0-0");
        new.position = None;
        assert_eq!(
            new.note_trimmed(&info(3, "8-0", "9-0", 20), StreamId::ZERO),
            None,
            "what was gone before is not missed"
        );
        assert_eq!(new.index, Some(17));
    }

    #[test]
    fn an_end_is_reached_by_its_entry_or_by_nothing_more() {
        let (mut stream, asked) = (stream("5-0"), Instant::now());
        assert!(stream.has_read("5-0".parse().unwrap(), asked) && !stream.has_read("6-0".parse().unwrap(), asked));
        stream.empty_at = Some(asked);
        assert!(stream.has_read("6-0".parse().unwrap(), asked));
        assert!(!stream.has_read("6-0".parse().unwrap(), asked + Duration::from_secs(1)));
    }
}
