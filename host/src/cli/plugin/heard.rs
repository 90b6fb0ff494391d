//! What a plugin logged, and what the host had to say about it, while it was tried.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _};

/// Lines that are kept; a plugin may log with every row.
const LINES_MAX: usize = 1_000;

/// Lines so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Lines>>);

/// What was kept, and how much was not.
#[derive(Debug, Default)]
struct Lines {
    /// The first ones.
    kept: Vec<String>,
    /// How many more there were.
    more: usize,
}

impl Heard {
    /// Listens from now on; another listener of the process stays where there is one.
    pub(super) fn listen() -> Self {
        let heard = Self::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone());
        // Only tests have one already.
        let _ = tracing::subscriber::set_global_default(subscriber);
        heard
    }

    /// Everything since it was asked last, as `level: words`.
    pub(super) fn take(&self) -> Vec<String> {
        let Lines { mut kept, more } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        kept.extend((more > 0).then(|| format!("... and {more} lines more")));
        kept
    }
}

/// The words of an event, and whether it is about a plugin.
#[derive(Default)]
struct Words {
    /// Its message.
    message: String,
    /// Where in the plugin.
    context: String,
    /// Whether it has a plugin.
    is_of_plugin: bool,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "plugin" => self.is_of_plugin = true,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "context" if !value.is_empty() => self.context = format!("{value}: "),
            "plugin" => self.is_of_plugin = true,
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("fs_data_sink::plugin") {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        if !words.is_of_plugin {
            return;
        }
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.kept.len() < LINES_MAX {
            lines.kept.push(format!("{level}: {}{}", words.context, words.message));
        } else {
            lines.more += 1;
        }
    }
}
