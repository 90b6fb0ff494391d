//! What tests of grants share: a voice, and what the log hears.

use std::sync::Arc;

pub(super) use heard::Heard;

use crate::{
    plugin::{ChainContext, LanePauses, voice::Voice},
    telemetry::metrics::Metrics,
};

#[path = "../../../tests/plugin_hostile/heard.rs"]
mod heard;

/// The voice of a plugin `p` in a pipeline of the tenant `shop`.
pub(super) fn voice() -> Arc<Voice> {
    let context = ChainContext {
        pipeline: "orders".into(),
        tenant: "shop".into(),
        lane: 0,
        metrics: Metrics::detached(),
        pauses: LanePauses::detached(),
    };
    Arc::new(Voice::new("p".into(), "ab".repeat(32), context, 0))
}

impl Heard {
    /// The refusals, as reason and message; each names plugin, pipeline and tenant.
    pub(super) fn refusals(&self) -> Vec<String> {
        let mut refusals = self.lines();
        refusals.retain(|line| line.contains("the plugin was refused"));
        for line in &refusals {
            for name in ["plugin=\"p\"", "sha256=\"abab", "pipeline=\"orders\"", "tenant=\"shop\""] {
                assert!(line.contains(name), "{line}");
            }
        }
        refusals
    }
}
