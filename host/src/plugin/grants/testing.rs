//! What tests of grants share: a voice, and what the log hears.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{Event, Subscriber, field, subscriber::DefaultGuard};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _, registry};

use crate::{
    plugin::{ChainContext, LanePauses, voice::Voice},
    telemetry::metrics::Metrics,
};

/// The voice of a plugin `p` in a pipeline of the tenant `shop`.
pub(super) fn voice() -> Arc<Voice> {
    let context = ChainContext {
        pipeline: "orders".into(),
        tenant: "shop".into(),
        lane: 0,
        metrics: Metrics::detached(),
        pauses: LanePauses::detached(),
    };
    Arc::new(Voice::new("p".into(), context, 0))
}

/// What the log of this thread hears: fields and message of each line.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// Listens until the guard is dropped.
    pub(super) fn listen() -> (Self, DefaultGuard) {
        let heard = Self::default();
        let guard = tracing::subscriber::set_default(registry().with(heard.clone()));
        (heard, guard)
    }

    /// The refusals, as reason and message; each names plugin, pipeline and tenant.
    pub(super) fn refusals(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let refusals = lines.iter().filter(|line| line.contains("the plugin was refused"));
        let told = refusals.map(|line| {
            for name in ["plugin=\"p\"", "pipeline=\"orders\"", "tenant=\"shop\""] {
                assert!(line.contains(name), "{line}");
            }
            line.clone()
        });
        told.collect()
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
