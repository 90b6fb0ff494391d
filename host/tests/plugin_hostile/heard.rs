//! What the log of a test hears. The unit tests of grants include this file too.

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

    /// What was heard so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
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
