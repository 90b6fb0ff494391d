//! What the log of a test hears of refusals.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{Event, Subscriber, field, subscriber::DefaultGuard};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _, registry};

/// Lines of the log of this thread: fields and message.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// Listens until the guard is dropped. The test's runtime must have one thread.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        let heard = Self::default();
        let guard = tracing::subscriber::set_default(registry().with(heard.clone()));
        (heard, guard)
    }

    /// A refusal was logged, with plugin, pipeline and tenant.
    pub(crate) fn expect(&self, grant: &str, reason: &str) {
        let lines = self.0.lock().unwrap();
        let wanted = [
            format!("grant=\"{grant}\""),
            format!("reason=\"{reason}\""),
            "plugin=\"hostile\"".to_owned(),
            "pipeline=\"test\"".to_owned(),
            "tenant=\"test\"".to_owned(),
            "the plugin was refused".to_owned(),
        ];
        let is_told = lines.iter().any(|line| wanted.iter().all(|part| line.contains(part)));
        assert!(is_told, "{grant} {reason}: {lines:#?}");
    }
}

impl<S: Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        event.record(&mut |field: &field::Field, value: &dyn Debug| {
            let _ = write!(line, "{}={value:?} ", field.name());
        });
        self.0.lock().unwrap().push(line);
    }
}
