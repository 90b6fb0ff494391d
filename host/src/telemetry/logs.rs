//! Log lines on standard error.
//!
//! Comes in: `tracing` events of this program and of the libraries beneath it. Goes out: lines, as JSON or text, at the
//! levels that `telemetry.log_level` names. Libraries stay at WARN unless they are named; failed pushes to a collector
//! are told once a minute and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter},
    layer::{Context, Filter},
    registry::LookupSpan,
};

use super::rate_limit::RateLimited;
use crate::{
    config::{LogFormat, TelemetryConfig},
    error::PipelineError,
};

/// Libraries that say too much at INFO and below, by the first letters of their targets; a directive in
/// `telemetry.log_level` overrides each.
const QUIET_LIBRARIES: [&str; 11] = [
    "cranelift",
    "h2",
    "hyper",
    "object_store",
    "opentelemetry",
    "regalloc2",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
    "wasmtime",
];

/// A collector that is away makes each push fail, one every five seconds and signal: more lines tell nothing new.
const PUSH_ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// Writes lines as configured; failed pushes are counted in `push_errors`.
pub(super) fn layer<S>(
    config: &TelemetryConfig,
    push_errors: &Arc<AtomicU64>,
) -> Result<impl Layer<S> + Send + Sync, PipelineError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let pushes = PushErrors { seen: Arc::clone(push_errors), told: RateLimited::new(PUSH_ERROR_INTERVAL) };
    // The second is asked only about what the first lets through.
    Ok(lines.with_filter(filter(&config.log_level)?.and(pushes)))
}

/// Whether [`crate::telemetry::start`] will take a `telemetry.log_level`; otherwise why not.
pub fn check_log_level(wanted: &str) -> Result<(), String> {
    filter(wanted).map(drop).map_err(|error| error.full_message())
}

/// `INFO`, `WARNING` as in the original, or directives such as `INFO,fs_data_sink::source=DEBUG`.
fn filter(wanted: &str) -> Result<EnvFilter, PipelineError> {
    let explain = |part: &str| {
        PipelineError::stop(format!(
            "telemetry.log_level {wanted:?}: {part:?} is neither a level (DEBUG, INFO, WARNING, ERROR) nor a directive such \
             as fs_data_sink::source=DEBUG"
        ))
    };
    let mut directives = Vec::new();
    let mut default = LevelFilter::INFO;
    for part in wanted.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // A bare word that is no level would be taken for the name of a library, and switch off all others.
        match part.rsplit_once('=') {
            None => default = level(part).ok_or_else(|| explain(part))?,
            Some((target, words)) => {
                let level = level(words.trim()).ok_or_else(|| explain(part))?;
                directives.push(format!("{}={level}", target.trim()));
            }
        }
    }
    let quiet = default.min(LevelFilter::WARN);
    let libraries = QUIET_LIBRARIES.map(|library| format!("{library}={quiet}")).join(",");
    let directives = format!("{default},{libraries},{}", directives.join(","));
    EnvFilter::try_new(&directives).map_err(|error| explain(wanted).because(error))
}

/// A level by Python's names or by ours.
fn level(word: &str) -> Option<LevelFilter> {
    match word.to_ascii_uppercase().as_str() {
        "TRACE" => Some(LevelFilter::TRACE),
        "DEBUG" => Some(LevelFilter::DEBUG),
        "INFO" => Some(LevelFilter::INFO),
        "WARN" | "WARNING" => Some(LevelFilter::WARN),
        "ERROR" | "CRITICAL" => Some(LevelFilter::ERROR),
        "OFF" => Some(LevelFilter::OFF),
        _ => None,
    }
}

/// Lets through one complaint of the OpenTelemetry libraries an interval, and counts them all.
#[derive(Debug)]
struct PushErrors {
    /// How many there were.
    seen: Arc<AtomicU64>,
    /// Which of them are told.
    told: RateLimited,
}

impl<S> Filter<S> for PushErrors {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        if !metadata.is_event() || !metadata.target().starts_with("opentelemetry") {
            return true;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.told.allow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::subscriber::with_default;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    /// Remembers the targets of the events that reach it.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target());
        }
    }

    /// Targets of the events that a level lets through.
    fn heard(level: &str) -> Vec<&'static str> {
        let heard = Heard::default();
        with_default(registry().with(heard.clone().with_filter(filter(level).unwrap())), || {
            tracing::debug!(target: "fs_data_sink::source", "");
            tracing::info!(target: "fs_data_sink::file", "");
            tracing::debug!(target: "h2::client", "");
            tracing::warn!(target: "hyper_util", "");
            tracing::error!(target: "object_store", "");
        });
        heard.0.lock().unwrap().clone()
    }

    #[test]
    fn libraries_stay_quiet_unless_they_are_named() {
        assert_eq!(heard("INFO"), ["fs_data_sink::file", "hyper_util", "object_store"]);
        assert_eq!(heard("debug"), ["fs_data_sink::source", "fs_data_sink::file", "hyper_util", "object_store"]);
        assert_eq!(heard("ERROR"), ["object_store"]);
        assert_eq!(heard("WARNING,fs_data_sink::source=DEBUG"), ["fs_data_sink::source", "hyper_util", "object_store"]);
        assert_eq!(heard("critical, h2 = debug"), ["h2::client", "object_store"]);
        assert!(heard("OFF").is_empty());
    }

    #[test]
    fn what_is_no_level_is_named() {
        for wrong in ["LOUD", "verbose,INFO", "INFO,fs_data_sink=LOUD", "=", "fs_data_sink::source"] {
            let error = filter(wrong).unwrap_err().to_string();
            assert!(check_log_level(wrong).is_err() && check_log_level("INFO").is_ok());
            assert!(error.starts_with("telemetry.log_level ") && error.contains("neither a level"), "{error}");
        }
    }

    #[test]
    fn failed_pushes_are_counted_and_told_once_in_a_while() {
        let (heard, seen) = (Heard::default(), Arc::new(AtomicU64::new(0)));
        let pushes = PushErrors { seen: Arc::clone(&seen), told: RateLimited::new(PUSH_ERROR_INTERVAL) };
        let filter = filter("INFO").unwrap().and(pushes);
        with_default(registry().with(heard.clone().with_filter(filter)), || {
            for _ in 0..3 {
                tracing::error!(target: "opentelemetry_sdk", "the collector is away");
                tracing::debug!(target: "opentelemetry-otlp", "not let through anyway");
                tracing::info!(target: "fs_data_sink", "");
            }
        });
        assert_eq!(*heard.0.lock().unwrap(), ["opentelemetry_sdk", "fs_data_sink", "fs_data_sink", "fs_data_sink"]);
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    }
}
