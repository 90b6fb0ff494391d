//! Streams and lists of Redis: one server, one watched by Sentinels, or a cluster.
//!
//! Each lane reads in a task of the runtime for sockets, with one connection, so neither encoding nor plugins delay what keeps it a member; it
//! talks to the lane over a bounded channel. A thread for each would cost more memory than all else of a pipeline that is idle. No command of ours blocks in the server: what has nothing new is asked again after a pause that grows.
//!
//! Exactly once (`once.rs`): streams only, each read by one lane, by id, from where the ledger says. At least once (`least.rs`): streams by
//! their consumer group (`group.rs`), and lists, whose items are moved aside while they are worked on (`list.rs`).
//!
//! What the lane must do is what it does for Kafka: claim on [`SourceEvent::Assigned`], commit and release on [`SourceEvent::Revoked`], begin anew on
//! [`SourceEvent::Lost`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio::{sync::mpsc, task::JoinHandle};

#[cfg(doc)]
use super::SourceEvent;
use super::{Control, EVENTS_MAX, LaneContext, SourceControl, SourceStream};
use crate::{
    checkpoint::CheckpointDelta,
    config::{Delivery, RedisConfig, RedisListRead, SourceConfig},
    error::PipelineError,
};

mod again;
mod appetite;
mod client;
mod entry;
mod fault;
mod group;
mod hints;
mod id;
mod least;
mod list;
mod members;
mod once;
mod outlet;
mod reply;
mod scripts;
mod seats;
mod spread;
mod stream;
mod tap;

pub(super) use again::read_again;
use client::{Backoff, Server};
use fault::Fault;
use group::{GroupStream, Held};
use hints::Hints;
use least::LeastReader;
use list::{List, Progress};
use members::Membership;
use once::OnceReader;
use outlet::{Outlet, Signals, Stop};
use seats::Seat;

/// The consumer group where none is configured; the same as for Kafka.
const GROUP: &str = "fs-data-sink-group";

/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long what is durable may take to be acknowledged when the lane ends; after that it comes again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a reader that has ended looks whether its lane has.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether it was.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// How long `validate --connect` waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Where commits go back to.
#[derive(Clone, Debug)]
enum Books {
    /// The ledger is the truth: others are told.
    Hints(Arc<Hints>),
    /// Redis is: what is held of each stream, and taken of each list.
    Held(Arc<BTreeMap<Arc<str>, Arc<Mutex<Held>>>>, Arc<BTreeMap<Arc<str>, Arc<Mutex<Progress>>>>),
}

/// A lane's hold on its reader.
#[derive(Clone, Debug)]
pub(super) struct RedisControl {
    /// What the lane wants.
    signals: Arc<Signals>,
    /// Where commits go.
    books: Books,
    /// The reader's task, until somebody waits for its end.
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Starts to read.
pub(super) fn start(
    redis: &RedisConfig,
    config: &SourceConfig,
    context: LaneContext,
) -> Result<SourceStream, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let signals = Arc::new(Signals::default());
    let redis = Arc::new(redis.clone());
    let server = Arc::new(Server::new(Arc::clone(&redis), Arc::clone(&context.pipeline), context.metrics.clone()));
    let (io, delivery) = (context.io.clone(), context.run.delivery);
    let outlet = Outlet::new(context, Arc::clone(&signals), sender, config);
    let (books, reader) = match delivery {
        Delivery::ExactlyOnce => once(outlet, redis, server),
        Delivery::AtLeastOnce => least(outlet, redis, server)?,
    };
    let task = io.spawn(reader.run());
    let control = RedisControl { signals, books, task: Arc::new(Mutex::new(Some(task))) };
    Ok(SourceStream { events, control: SourceControl(Control::Redis(control)) })
}

/// What a task runs.
enum Reader {
    /// Exactly once.
    Once(Box<OnceReader>, Arc<Hints>),
    /// At least once; it takes a name first.
    Least(Box<LeastReader>, Arc<BTreeMap<Arc<str>, Arc<Mutex<Held>>>>),
}

/// A reader under exactly once.
fn once(outlet: Outlet, redis: Arc<RedisConfig>, server: Arc<Server>) -> (Books, Reader) {
    let scope = format!("{}.{}", outlet.context.pipeline, redis.scope);
    let signals = Arc::clone(&outlet.signals);
    let membership = Arc::new(Membership::new(Arc::clone(&server), &scope, redis.session_timeout, signals));
    let hints = Arc::new(Hints::default());
    let positions_key = scripts::pipeline_key(&scope, "positions");
    let reader = OnceReader::new(outlet, redis, server, membership, positions_key);
    (Books::Hints(Arc::clone(&hints)), Reader::Once(Box::new(reader), hints))
}

/// A reader under at least once.
fn least(outlet: Outlet, redis: Arc<RedisConfig>, server: Arc<Server>) -> Result<(Books, Reader), PipelineError> {
    let LaneContext { pipeline, lane, lanes, budget, .. } = &outlet.context;
    let name = redis.consumer_name.as_ref();
    let name = name.map(|name| if *lanes > 1 { format!("{name}-{lane}") } else { name.clone() });
    let timeout = redis.session_timeout;
    let seat = Arc::new(Seat::new(Arc::clone(&server), pipeline, timeout, name));
    let held = |key: &String| (Arc::from(key.as_str()), Arc::new(Mutex::new(Held::new(budget))));
    let held: Arc<BTreeMap<Arc<str>, _>> = Arc::new(redis.stream_keys.iter().map(held).collect());
    let (mut lists, mut progress) = (Vec::new(), BTreeMap::new());
    for key in &redis.list_keys {
        let (key, taken): (Arc<str>, Arc<Mutex<Progress>>) = (key.as_str().into(), Arc::default());
        progress.insert(Arc::clone(&key), Arc::clone(&taken));
        lists.push(List::new(key, redis.list_read, timeout, taken, outlet.rows_max)?);
    }
    if redis.list_read == RedisListRead::Pop {
        tracing::warn!(pipeline = %pipeline, lane, "source.list_read is pop: items leave their lists when they are read, and are lost when \
            the process is killed before their files are durable");
    }
    let seat = (!held.is_empty()).then_some(seat);
    let reader =
        LeastReader { outlet, config: redis, server, seat, streams: Vec::new(), lists, backoff: Backoff::new() };
    Ok((Books::Held(Arc::clone(&held), Arc::new(progress)), Reader::Least(Box::new(reader), held)))
}

impl Reader {
    /// Reads to the end, then stays until the lane is gone.
    async fn run(self) {
        match self {
            Self::Once(reader, hints) => run_once(*reader, &hints).await,
            Self::Least(reader, held) => run_least(*reader, &held).await,
        }
    }
}

/// The life of a reader under exactly once.
async fn run_once(mut reader: OnceReader, hints: &Hints) {
    let (membership, server) = (Arc::clone(&reader.membership), Arc::clone(&reader.server));
    let signals = Arc::clone(&reader.outlet.signals);
    let (group, positions_key) = (reader.config.consumer_group.clone(), reader.positions_key.clone());
    let reading = async {
        let stop = tokio::select! {
            stop = reader.read() => stop,
            () = signals.closed() => Stop::Gone,
        };
        reader.outlet.end(stop).await;
        // Its streams are given back once the lane has committed.
        while !signals.is_closed() && !reader.outlet.is_gone() {
            signals.sleep(LOOK_PAUSE).await;
        }
        signals.close();
        membership.hurry();
        hints.wake();
    };
    let telling = hints.keep(&server, &positions_key, group.as_deref(), &signals);
    // Boxed, or the compiler does not see that they may go from thread to thread.
    tokio::join!(reading.boxed(), membership.keep().boxed(), telling.boxed());
}

/// The life of a reader under at least once.
async fn run_least(mut reader: LeastReader, held: &BTreeMap<Arc<str>, Arc<Mutex<Held>>>) {
    let (signals, server, seat) =
        (Arc::clone(&reader.outlet.signals), Arc::clone(&reader.server), reader.seat.as_ref().map(Arc::clone));
    let list_seats = reader.lists.iter().filter_map(|list| list.seat.as_ref().map(Arc::clone)).collect();
    let lists = list::keep(list_seats, server, reader.config.session_timeout, Arc::clone(&signals));
    let reading = async {
        let stop = tokio::select! {
            stop = name_and_read(&mut reader, held) => stop,
            () = signals.closed() => Stop::Gone,
        };
        reader.outlet.end(stop).await;
        reader.linger().await;
        if let Some(seat) = &reader.seat {
            seat.hurry();
        }
    };
    let speaking = async {
        if let Some(seat) = &seat {
            seat.keep(&signals).await;
        }
    };
    // Boxed for the same reason.
    tokio::join!(reading.boxed(), speaking.boxed(), lists.boxed());
}

/// Reads once this consumer has a name.
async fn name_and_read(reader: &mut LeastReader, held: &BTreeMap<Arc<str>, Arc<Mutex<Held>>>) -> Stop {
    match name(reader, held).await {
        Ok(()) => reader.read().await,
        Err(stop) => stop,
    }
}

/// Takes the name of this consumer, and opens its streams.
async fn name(reader: &mut LeastReader, held: &BTreeMap<Arc<str>, Arc<Mutex<Held>>>) -> Result<(), Stop> {
    let Some(seat) = &reader.seat else { return Ok(()) };
    let Some(consumer) = least::take_name(seat, &reader.outlet.signals).await? else { return Err(Stop::End) };
    let group = reader.config.consumer_group.clone().unwrap_or_else(|| GROUP.to_owned());
    tracing::info!(pipeline = %reader.outlet.context.pipeline, lane = reader.outlet.context.lane, group, consumer, "reading streams of Redis");
    for (key, held) in held {
        let (key, seat, held) = (Arc::clone(key), Arc::clone(seat), Arc::clone(held));
        let stream = GroupStream::new(key, group.clone(), consumer.clone(), seat, held, reader.outlet.rows_max);
        reader.streams.push(stream);
    }
    Ok(())
}

impl RedisControl {
    /// These offsets are durable: streams and lists are told soon, by the reader.
    pub(super) fn committed(&self, delta: &CheckpointDelta) {
        match &self.books {
            Books::Hints(hints) => hints.add(delta),
            Books::Held(streams, lists) => {
                for (partition, range) in delta.iter() {
                    if let Some(held) = streams.get(&partition.topic) {
                        group::lock(held).durable_to(range.to);
                    }
                    if let Some(progress) = lists.get(&partition.topic) {
                        progress.lock().unwrap_or_else(PoisonError::into_inner).durable_to(range.to);
                    }
                }
                self.signals.wake();
            }
        }
    }

    /// Asks the reader to stop reading.
    pub(super) fn stop(&self) {
        self.signals.stop();
    }

    /// Leaves, so that the others need not wait for the session to expire; gives up after a while.
    pub(super) async fn close(self) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while self.owes() && !self.has_ended() && Instant::now() < deadline {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        if self.owes() {
            tracing::warn!("Redis did not take what was acknowledged last; those records come again");
        }
        self.signals.close();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        // A task that panicked has told so; there is nothing else to do about it here.
        if tokio::time::timeout(LEAVE_TIMEOUT, task).await.is_err() {
            tracing::warn!("the Redis client could not leave in time; the others wait for its session to expire");
        }
    }

    /// Whether Redis has to be told of something that is durable.
    fn owes(&self) -> bool {
        match &self.books {
            Books::Hints(_) => false,
            Books::Held(streams, lists) => {
                let owes_list = |progress: &Arc<Mutex<Progress>>| {
                    !progress.lock().unwrap_or_else(PoisonError::into_inner).owes_nothing()
                };
                streams.values().any(|held| !group::lock(held).owes_nothing()) || lists.values().any(owes_list)
            }
        }
    }

    /// Whether the reader is gone, so that nothing more will be told.
    fn has_ended(&self) -> bool {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Asks whether the server lets us in and the keys are what they should be. A key that is not there may come.
pub(super) async fn check(redis: &RedisConfig) -> Result<(), PipelineError> {
    let server = Server::new(Arc::new(redis.clone()), "".into(), crate::telemetry::metrics::Metrics::detached());
    let streams = redis.stream_keys.iter().map(|key| (key, "stream", "XINFO"));
    let lists = redis.list_keys.iter().map(|key| (key, "list", "LLEN"));
    for (key, kind, verb) in streams.chain(lists) {
        let mut command = redis::cmd(verb);
        if verb == "XINFO" {
            command.arg("STREAM");
        }
        command.arg(key);
        let doing = format!("source.{kind}_keys: {key}: asking about the {kind}");
        match tokio::time::timeout(CHECK_TIMEOUT, server.ask(&command, &doing)).await {
            Ok(Ok(_) | Err(Fault::NoKey)) => {}
            Ok(Err(Fault::Away(error))) => {
                let words = format!("source: cannot reach Redis at {}: {error}", server.servers());
                return Err(PipelineError::stop(words).because(error));
            }
            Ok(Err(fault)) => return Err(fault.into_error(&doing)),
            Err(_late) => {
                return Err(PipelineError::stop(format!("source: Redis at {} does not answer", server.servers())));
            }
        }
    }
    Ok(())
}
