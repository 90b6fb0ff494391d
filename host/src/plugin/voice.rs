//! What a plugin says: log lines, standard output and error, counters and gauges. And what is said of it: refusals.
//!
//! Comes in: text and numbers of any size at any rate. Goes out: `tracing` events with plugin, pipeline and tenant, at
//! most `limits.log_bytes_per_second`, and metrics under at most 64 names. What is above is dropped and counted. One
//! voice serves all instances of a plugin in a lane one after the other, so a restart does not refill its bucket.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use super::{
    ChainContext,
    bindings::logging::Level,
    budget::CallBudget,
    failure::{Limit, clean_to},
};
use crate::{telemetry::rate_limit::RateLimited, tenant::Tenant};

/// Metric names of one plugin in one lane; each is a time series for ever.
const METRIC_NAMES_MAX: usize = 64;
/// Bytes of one metric name, as OpenTelemetry recommends for instruments.
const METRIC_NAME_BYTES_MAX: usize = 63;
/// Bytes of one line on standard output or error; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes of one message through `wasi:logging`.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of its context.
const CONTEXT_BYTES_MAX: usize = 128;
/// Bytes kept of the end of standard error, for the dead letter of a batch on which the plugin trapped.
const TAIL_BYTES_MAX: usize = 1024;
/// Bytes of the words about one refusal, which may hold a plugin's own.
const REFUSAL_BYTES_MAX: usize = 512;
/// Refusals of one plugin in one lane are told at most this often for each reason, so that many of one kind do not hide the first of
/// another; all are counted.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);
/// What a guest may write in one go to its standard output.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// What a plugin says in one lane.
#[derive(Debug)]
pub(super) struct Voice {
    /// The plugin's name in the configuration.
    plugin: Arc<str>,
    /// SHA-256 of its component in hexadecimal digits, since a name can be given to anything.
    sha256: String,
    /// Where it runs.
    context: ChainContext,
    /// Bytes a second.
    log_bytes_per_second: usize,
    /// Keeps what is told of grants readable: by grant and reason, which are words of this program and few.
    told: Mutex<BTreeMap<(&'static str, &'static str), RateLimited>>,
    /// What changes.
    state: Mutex<State>,
}

/// What changes in a voice.
#[derive(Debug)]
struct State {
    /// Bytes that may be logged now.
    bucket_bytes: usize,
    /// When bytes were last added.
    filled: Instant,
    /// Whether the last text was dropped; the first drop in a row is announced.
    dropping: bool,
    /// Metric names seen.
    names: HashSet<String>,
    /// The end of standard error since the last call began.
    tail: String,
}

impl Voice {
    /// The voice of a plugin.
    pub(super) fn new(plugin: Arc<str>, sha256: String, context: ChainContext, log_bytes_per_second: usize) -> Self {
        let state = State {
            bucket_bytes: log_bytes_per_second,
            filled: Instant::now(),
            dropping: false,
            names: HashSet::new(),
            tail: String::new(),
        };
        Self { plugin, sha256, context, log_bytes_per_second, told: Mutex::default(), state: Mutex::new(state) }
    }

    /// The plugin tried what it was not granted, or more of it than it may.
    pub(super) fn refused(&self, grant: &'static str, reason: &'static str, words: &str) {
        self.context.metrics.plugin_refused(&self.plugin, grant, reason);
        self.tell_of_grant(grant, reason, "the plugin was refused", words);
    }

    /// What the plugin asked of something outside failed there.
    pub(super) fn failed(&self, grant: &'static str, words: &str) {
        self.tell_of_grant(grant, "failed", "what the plugin asked for failed", words);
    }

    /// A line about a grant, if one may be written now, with how many were left out since the last of that reason.
    fn tell_of_grant(&self, grant: &'static str, reason: &'static str, what: &str, words: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = told.entry((grant, reason)).or_insert_with(|| RateLimited::new(REFUSAL_INTERVAL)).allow();
        drop(told);
        let Some(suppressed) = allowed else { return };
        tracing::warn!(
            plugin = &*self.plugin,
            sha256 = self.sha256,
            pipeline = &*self.context.pipeline,
            tenant = &*self.context.tenant,
            lane = self.context.lane,
            grant,
            reason,
            suppressed,
            "{what}: {}",
            clean_to(words, REFUSAL_BYTES_MAX)
        );
    }

    /// Whose it is.
    pub(super) fn tenant(&self) -> &Tenant {
        &self.context.tenant
    }

    /// The plugin's own code ran for so long.
    pub(super) fn computed(&self, took: Duration) {
        self.context.metrics.plugin_computed(&self.plugin, took.as_secs_f64());
    }

    /// So many bytes of the plugin leave the process; or in words why they may not, since its tenant has sent too much.
    pub(super) fn leaves(&self, grant: &'static str, bytes: usize) -> Result<(), String> {
        let tenant = self.tenant();
        if tenant.send(bytes) {
            self.context.metrics.plugin_egress(&self.plugin, grant, bytes as u64);
            return Ok(());
        }
        let most = tenant.limits().egress_bytes_per_second.unwrap_or_default();
        Err(format!(
            "its tenant has sent more than {most} bytes a second (tenants.{}.egress_bytes_per_second)",
            &**tenant
        ))
    }

    /// A line through `wasi:logging`. What is critical is kept like standard error, which not every plugin has.
    pub(super) fn log(&self, level: Level, context: &str, message: &str) {
        if level == Level::Critical {
            self.keep_tail(message);
        }
        // What is cut off counts as dropped; the bucket pays for what is kept.
        let kept = message.len().min(MESSAGE_BYTES_MAX);
        if kept < message.len() {
            self.context.metrics.plugin_log_dropped(&self.plugin, (message.len() - kept) as u64);
        }
        if self.allows(kept) {
            self.emit(level, &clean_to(context, CONTEXT_BYTES_MAX), &clean_to(message, MESSAGE_BYTES_MAX));
        }
    }

    /// A counter; the name may be refused.
    pub(super) fn count(&self, name: &str, amount: u64) {
        if self.knows(name) {
            self.context.metrics.plugin_count(&self.plugin, name, amount);
        }
    }

    /// A gauge; the name may be refused.
    pub(super) fn gauge(&self, name: &str, value: f64) {
        if self.knows(name) {
            self.context.metrics.plugin_gauge(&self.plugin, name, value);
        }
    }

    /// A call begins: what the last one said on standard error is forgotten.
    pub(super) fn start_call(&self) {
        self.state().tail.clear();
    }

    /// The end of what was said on standard error since the call began.
    pub(super) fn error_tail(&self) -> String {
        self.state().tail.trim().to_owned()
    }

    /// Keeps a line for the dead letter of a batch on which the plugin traps.
    fn keep_tail(&self, line: &str) {
        // Only the end of it could stay.
        let line = &line[line.floor_char_boundary(line.len().saturating_sub(TAIL_BYTES_MAX))..];
        let mut state = self.state();
        state.tail.push_str(line);
        state.tail.push('\n');
        let cut = state.tail.len().saturating_sub(TAIL_BYTES_MAX);
        let cut = state.tail.ceil_char_boundary(cut);
        state.tail.drain(..cut);
    }

    /// The state; a panic elsewhere leaves it usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes from the bucket, or counts them as dropped.
    fn allows(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let elapsed_ms = usize::try_from(state.filled.elapsed().as_millis()).unwrap_or(usize::MAX);
        let earned = self.log_bytes_per_second.saturating_mul(elapsed_ms) / 1000;
        if earned > 0 {
            state.bucket_bytes = state.bucket_bytes.saturating_add(earned).min(self.log_bytes_per_second);
            state.filled = Instant::now();
        }
        // An empty line costs something too, or there would be no end of them.
        if let Some(left) = state.bucket_bytes.checked_sub(bytes.max(16)) {
            state.bucket_bytes = left;
            state.dropping = false;
            return true;
        }
        let first = !std::mem::replace(&mut state.dropping, true);
        drop(state);
        self.context.metrics.plugin_log_dropped(&self.plugin, bytes as u64);
        if first {
            self.context.metrics.plugin_limit_hit(&self.plugin, Limit::LogBytesPerSecond.as_str());
            let limit = self.log_bytes_per_second;
            tracing::warn!(
                plugin = &*self.plugin,
                pipeline = &*self.context.pipeline,
                tenant = &*self.context.tenant,
                "the plugin logs more than {limit} bytes a second; what is above is dropped and counted"
            );
        }
        false
    }

    /// Whether a metric name is known, or there is room for it.
    fn knows(&self, name: &str) -> bool {
        let mut state = self.state();
        let known = state.names.contains(name)
            || (is_metric_name(name) && state.names.len() < METRIC_NAMES_MAX && state.names.insert(name.to_owned()));
        drop(state);
        if !known {
            self.context.metrics.plugin_metric_dropped(&self.plugin);
            self.context.metrics.plugin_limit_hit(&self.plugin, Limit::MetricNames.as_str());
        }
        known
    }

    /// Hands a line to `tracing`.
    fn emit(&self, level: Level, context: &str, message: &str) {
        /// One event; the level has to be a constant.
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "fs_data_sink::plugin::guest",
                    tracing::Level::$level,
                    plugin = &*self.plugin,
                    pipeline = &*self.context.pipeline,
                    tenant = &*self.context.tenant,
                    lane = self.context.lane,
                    context,
                    "{message}"
                )
            };
        }
        match level {
            Level::Trace => event!(TRACE),
            Level::Debug => event!(DEBUG),
            Level::Info => event!(INFO),
            Level::Warn => event!(WARN),
            Level::Error | Level::Critical => event!(ERROR),
        }
    }

    /// One line of standard output or error.
    fn line(&self, channel: Channel, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if channel == Channel::Error {
            self.keep_tail(&line);
        }
        if line.trim().is_empty() {
            return;
        }
        if self.allows(line.len()) {
            let level = if channel == Channel::Error { Level::Warn } else { Level::Info };
            self.emit(level, channel.as_str(), &clean_to(&line, LINE_BYTES_MAX));
        }
    }
}

/// Letters, digits, `_`, `.`, `-`, `/`, beginning with a letter: what OpenTelemetry allows for an instrument.
fn is_metric_name(name: &str) -> bool {
    name.len() <= METRIC_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Channel {
    /// The name in log lines.
    fn as_str(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
        }
    }
}

/// Standard output or error of an instance: lines become log lines.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// Who speaks.
    voice: Arc<Voice>,
    /// Where.
    channel: Channel,
    /// What writing is taken from.
    budget: Arc<CallBudget>,
    /// A line that has not ended yet; at most [`LINE_BYTES_MAX`] bytes.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    /// A pipe to a voice.
    pub(super) fn new(voice: &Arc<Voice>, channel: Channel, budget: &Arc<CallBudget>) -> Self {
        Self { voice: Arc::clone(voice), channel, budget: Arc::clone(budget), partial: Arc::default() }
    }

    /// Ends the line that has not ended yet.
    pub(super) fn finish_line(&self) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if !partial.is_empty() {
            self.voice.line(self.channel, &std::mem::take(&mut *partial));
        }
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.1 and 0.3 ask for this one, and neither is linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap("wrote more than it was allowed to"));
        }
        self.budget.copy(bytes.len()).map_err(|spent| StreamError::trap(&spent.to_string()))?;
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            if byte != b'\n' {
                partial.push(byte);
            }
            if byte == b'\n' || partial.len() >= LINE_BYTES_MAX {
                self.voice.line(self.channel, &partial);
                partial.clear();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use tracing::{Event, Subscriber, field, subscriber::with_default};
    use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, registry};

    use super::*;
    use crate::{config::PluginLimits, plugin::LanePauses, telemetry::metrics::Metrics};

    /// A voice with so many bytes a second.
    fn voice(log_bytes_per_second: usize) -> Arc<Voice> {
        let metrics = Metrics::detached();
        let pauses = LanePauses::detached();
        let context = ChainContext { pipeline: "p".into(), tenant: "t".into(), lane: 0, metrics, pauses };
        Arc::new(Voice::new("plugin".into(), "ab".repeat(32), context, log_bytes_per_second))
    }

    /// Messages that reached `tracing`.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut message = String::new();
            event.record(&mut |field: &field::Field, value: &dyn Debug| {
                if field.name() == "message" {
                    message = format!("{value:?}");
                }
            });
            self.0.lock().unwrap().push(message);
        }
    }

    /// What `tracing` hears while something runs.
    fn heard(run: impl FnOnce()) -> Vec<String> {
        let heard = Heard::default();
        with_default(registry().with(heard.clone()), run);
        Arc::into_inner(heard.0).map(|messages| messages.into_inner().unwrap()).unwrap_or_default()
    }

    #[test]
    fn a_plugin_that_logs_too_much_is_cut_off_once_and_told_so() {
        let voice = voice(1000);
        let heard = heard(|| (0..10_000).for_each(|_| voice.log(Level::Info, "c", &"x".repeat(100))));
        let lines = heard.iter().filter(|line| line.starts_with("xxx")).count();
        // Ten at once, and what is earned while the loop runs.
        assert!((10..1000).contains(&lines), "{lines}");
        assert!(heard.iter().any(|line| line.contains("logs more than 1000 bytes a second")));
    }

    #[test]
    fn refusals_of_one_kind_do_not_hide_those_of_another() {
        let voice = voice(0);
        let heard = heard(|| {
            for number in 0..100 {
                voice.refused("http", "host", &format!("number {number}"));
                voice.refused("http", "address", &format!("number {number}"));
                voice.failed("http", &format!("number {number}"));
            }
        });
        let refused = "the plugin was refused: number 0";
        assert_eq!(heard, [refused, refused, "what the plugin asked for failed: number 0"]);
    }

    #[test]
    fn lines_are_cut_and_put_together_from_pieces() {
        let voice = voice(1 << 20);
        let heard = heard(|| {
            let budget = Arc::new(CallBudget::new(&PluginLimits::default()));
            let mut pipe = Pipe::new(&voice, Channel::Error, &budget);
            pipe.write(Bytes::from_static(b"first li")).unwrap();
            pipe.write(Bytes::from_static(b"ne\n\nsecond\x1b\nthird")).unwrap();
            pipe.finish_line();
            pipe.write(Bytes::from(vec![b'y'; 3 * LINE_BYTES_MAX])).unwrap();
            assert!(pipe.write(Bytes::from(vec![b'y'; WRITE_BYTES_MAX + 1])).is_err());
        });
        assert_eq!(heard[..3], ["first line", "second ", "third"]);
        assert_eq!(heard[3..].iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX; 3]);
        assert!(voice.error_tail().len() <= TAIL_BYTES_MAX);
        voice.start_call();
        assert_eq!(voice.error_tail(), "");
    }

    #[test]
    fn critical_words_are_kept_like_standard_error() {
        let voice = voice(0);
        voice.log(Level::Error, "c", "an error");
        assert_eq!(voice.error_tail(), "");
        voice.log(Level::Critical, "c", &("é".repeat(TAIL_BYTES_MAX) + "last words"));
        let tail = voice.error_tail();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("élast words"), "{tail}");
    }

    #[test]
    fn metric_names_are_few_and_of_a_small_alphabet() {
        let voice = voice(0);
        let names: Vec<_> = (0..1000).map(|number| format!("name{number}")).collect();
        assert_eq!(names.iter().filter(|name| voice.knows(name)).count(), METRIC_NAMES_MAX);
        assert!(voice.knows("name0") && !voice.knows("name999"));
        let voice = self::voice(0);
        for bad in ["", "1st", "new\nline", "sp ace", "ümlaut", &"x".repeat(64)] {
            assert!(!voice.knows(bad), "{bad}");
        }
        assert!(voice.knows("rows.seen/total_count-1"));
    }
}
