//! Under exactly once: how far the ledger is, told in Redis for others. Lag tools see the consumer group, where one is configured,
//! and a process that reads `--until-end` sees the positions. A hint that is lost is told again with the next commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{client::Server, fault::Fault, id::StreamId, outlet::Signals};
use crate::checkpoint::CheckpointDelta;

/// How long what is committed last may take to be told when the lane ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(3);

/// Hints that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// For each stream the next offset.
    open: Mutex<BTreeMap<Arc<str>, i64>>,
    /// Wakes who tells them.
    wake: Notify,
}

impl Hints {
    /// These offsets are committed.
    pub(super) fn add(&self, delta: &CheckpointDelta) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, range) in delta.iter() {
            open.insert(Arc::clone(&partition.topic), range.to);
        }
        drop(open);
        self.wake.notify_one();
    }

    /// Wakes who tells them, for the end.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells them until the lane is gone.
    pub(super) async fn keep(&self, server: &Server, positions_key: &str, group: Option<&str>, signals: &Signals) {
        while !signals.is_closed() {
            self.wake.notified().await;
            // The next commit tells what could not be told.
            if let Err(fault) = self.tell(server, positions_key, group).await {
                tracing::debug!(?fault, "Redis: what is committed could not be told to others");
            }
        }
        let _ = tokio::time::timeout(LAST_TIMEOUT, self.tell(server, positions_key, group)).await;
    }

    /// Tells what there is.
    async fn tell(&self, server: &Server, positions_key: &str, group: Option<&str>) -> Result<(), Fault> {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        if open.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HSET");
        command.arg(positions_key);
        for (stream, offset) in &open {
            command.arg(&**stream).arg(offset);
        }
        server.ask(&command, "telling how far this lane is").await?;
        let Some(group) = group else { return Ok(()) };
        for (stream, offset) in &open {
            let set = |verb: &str| {
                let mut command = redis::cmd("XGROUP");
                command.arg(verb).arg(&**stream).arg(group).arg(StreamId::before_offset(*offset).to_string());
                command
            };
            let doing = format!("{stream}: moving the consumer group {group:?}");
            match server.ask(&set("SETID"), &doing).await {
                Err(Fault::NoGroup) => server.ask(&set("CREATE"), &doing).await.map(|_| ())?,
                Err(fault) => return Err(fault),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}
