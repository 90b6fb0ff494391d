//! Lanes that wait with a batch in their hands: for a plugin that fails again and again, or for a place for an instance.
//!
//! Comes in: which plugin makes a lane wait, and why. Goes out: the metric, what `/readyz` says, and a sign to the lane,
//! which then commits what it has read before. Promise: a pause is over for all of them when its guard is dropped,
//! however the wait ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Health, metrics::Metrics};

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseKind {
    /// A plugin whose circuit is open.
    Circuit,
    /// A place for an instance.
    Place,
}

/// The pauses of one pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pauses(Arc<Inner>);

/// What all lanes share.
#[derive(Debug)]
struct Inner {
    /// The pipeline's name.
    pipeline: Arc<str>,
    /// Where open circuits are counted.
    metrics: Metrics,
    /// What `/readyz` tells.
    health: Health,
    /// Who waits.
    running: Mutex<Running>,
}

/// The pauses that last.
#[derive(Debug, Default)]
struct Running {
    /// Number of the next one.
    next: u64,
    /// The plugin, for what, and why in words.
    pauses: BTreeMap<u64, (Arc<str>, PauseKind, String)>,
}

/// How the plugins of one lane tell it that they wait, and are told to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LanePauses {
    /// Those of the pipeline.
    pauses: Pauses,
    /// Ends the waiting.
    stop: CancellationToken,
    /// Told when a pause begins.
    began: Arc<Notify>,
}

/// A pause that lasts until it is dropped.
#[derive(Debug)]
pub(super) struct Pause {
    /// Where it is known.
    pauses: Pauses,
    /// Its number there.
    number: u64,
}

impl Pauses {
    /// Nobody waits.
    #[must_use]
    pub fn new(pipeline: Arc<str>, health: Health, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { pipeline, metrics, health, running: Mutex::default() }))
    }

    /// Those of one lane, which `stop` ends.
    #[must_use]
    pub fn lane(&self, stop: CancellationToken) -> LanePauses {
        LanePauses { pauses: self.clone(), stop, began: Arc::default() }
    }

    /// Who waits; a panic elsewhere leaves it usable.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has become of a plugin.
    fn tell(&self, running: &Running, plugin: &str) {
        let Inner { pipeline, metrics, health, .. } = &*self.0;
        let is_open = running.pauses.values().any(|(name, kind, _)| &**name == plugin && *kind == PauseKind::Circuit);
        metrics.plugin_circuit(plugin, is_open);
        // Lanes wait for the same thing in nearly the same words; each plugin is named once.
        let words: BTreeMap<_, _> = running.pauses.values().map(|(name, _, reason)| (name, reason)).collect();
        let words: BTreeSet<_> = words.iter().map(|(name, reason)| format!("plugin {name} {reason}")).collect();
        let words = words.into_iter().collect::<Vec<_>>().join("; ");
        health.set_waiting(pipeline, (!words.is_empty()).then_some(words));
    }
}

impl LanePauses {
    /// What nobody waits for and nobody hears of; for checks and tests.
    #[must_use]
    pub fn detached() -> Self {
        Pauses::new("test".into(), Health::default(), Metrics::detached()).lane(CancellationToken::new())
    }

    /// Returns when a plugin of the lane begins to wait. Cancel-safe.
    pub async fn began(&self) {
        self.began.notified().await;
    }

    /// What ends the waiting.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Makes the plugin's gauge known before it has anything to tell.
    pub(super) fn declare(&self, plugin: &str) {
        self.pauses.tell(&self.pauses.running(), plugin);
    }

    /// The lane waits from now on. Gives way once, so that it can act on that before anything else.
    pub(super) async fn begin(&self, plugin: &Arc<str>, kind: PauseKind, reason: &str) -> Pause {
        let pause = {
            let mut running = self.pauses.running();
            running.next += 1;
            let number = running.next;
            running.pauses.insert(number, (Arc::clone(plugin), kind, reason.to_owned()));
            self.pauses.tell(&running, plugin);
            Pause { pauses: self.pauses.clone(), number }
        };
        self.began.notify_one();
        tokio::task::yield_now().await;
        pause
    }
}

impl Pause {
    /// It goes on, for a reason that may be another one.
    pub(super) fn goes_on(&self, because: &str) {
        let mut running = self.pauses.running();
        let Some((plugin, _, reason)) = running.pauses.get_mut(&self.number) else { return };
        because.clone_into(reason);
        let plugin = Arc::clone(plugin);
        self.pauses.tell(&running, &plugin);
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let mut running = self.pauses.running();
        if let Some((plugin, ..)) = running.pauses.remove(&self.number) {
            self.pauses.tell(&running, &plugin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::PipelineState;

    #[tokio::test]
    async fn a_pipeline_waits_until_the_last_of_its_lanes_goes_on() {
        let health = Health::default();
        health.set_pipeline("p", PipelineState::Running);
        let pauses = Pauses::new("p".into(), health.clone(), Metrics::detached());
        let lane = pauses.lane(CancellationToken::new());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = lane.begin(&a, PauseKind::Circuit, "traps").await;
        let second = lane.begin(&a, PauseKind::Circuit, "traps").await;
        let third = lane.begin(&b, PauseKind::Place, "finds no place").await;
        // Kept until somebody asks.
        lane.began().await;
        let waiting = |words: &str| PipelineState::Waiting(words.to_owned());
        assert_eq!(health.states()["p"], waiting("plugin a traps; plugin b finds no place"));
        drop(first);
        drop(third);
        second.goes_on("loops");
        assert_eq!(health.states()["p"], waiting("plugin a loops"));
        drop(second);
        assert!(health.is_ready());
    }
}
