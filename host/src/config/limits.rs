//! What a plugin may use, and what its tenant lets it use at most.
//!
//! Comes in: `plugins[].limits` and `tenants.NAME.limits`. Goes out: the limits in force. Promises: no plugin has more than its tenant
//! allows; who asks for more is told, and who says nothing gets what is allowed.

use std::{fmt::Debug, time::Duration};

/// What a plugin instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// All its memories together, and as much again for tables.
    pub memory_bytes: usize,
    /// One call, wall clock.
    pub call_timeout: Duration,
    /// Rows answered to one batch.
    pub output_rows: usize,
    /// Bytes answered to one batch, as sent.
    pub output_bytes: usize,
    /// The same with dictionaries unpacked.
    pub output_logical_bytes: usize,
    /// Rejections in one answer.
    pub rejections: usize,
    /// Rows that one answer may refuse.
    pub rejected_rows: usize,
    /// Bytes of one snapshot of its state, of which each source partition has one.
    pub state_bytes: usize,
    /// Log text; what is above is dropped and counted.
    pub log_bytes_per_second: usize,
    /// Calls of functions of the host in one call of the plugin.
    pub host_calls: usize,
    /// Bytes that the host copies for it in one call: what it reads, logs, and names.
    pub host_call_bytes: usize,
    /// Instances of it at once, over all lanes and datasets of its pipeline.
    pub instances: usize,
    /// The component's file.
    pub component_bytes: usize,
    /// Compiling it, wall clock.
    pub compile_time: Duration,
    /// Memory of the process that compiles it.
    pub compile_memory_bytes: usize,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            call_timeout: Duration::from_secs(2),
            output_rows: 1_000_000,
            output_bytes: 64 << 20,
            output_logical_bytes: 64 << 20,
            // A plugin has some codes, not one a row.
            rejections: 10_000,
            rejected_rows: 1_000_000,
            state_bytes: 64 << 20,
            log_bytes_per_second: 64 << 10,
            // Twelve for each row of a usual batch.
            host_calls: 100_000,
            // A batch of 64 MiB four times: as a stream, column by column, and both once more.
            host_call_bytes: 256 << 20,
            // As many as the process has places for.
            instances: 512,
            // A component of Python or JavaScript has about 20 MiB; compiling takes memory in proportion.
            component_bytes: 64 << 20,
            // A component of Python takes 12 s of one core, and between 512 MiB and 1 GiB; machines are busy when they start.
            compile_time: Duration::from_secs(120),
            compile_memory_bytes: 1 << 30,
        }
    }
}

impl PluginLimits {
    /// No limits at all, for a tenant that sets some of them.
    pub(super) const NONE: Self = Self {
        memory_bytes: usize::MAX,
        call_timeout: Duration::MAX,
        output_rows: usize::MAX,
        output_bytes: usize::MAX,
        output_logical_bytes: usize::MAX,
        rejections: usize::MAX,
        rejected_rows: usize::MAX,
        state_bytes: usize::MAX,
        log_bytes_per_second: usize::MAX,
        host_calls: usize::MAX,
        host_call_bytes: usize::MAX,
        instances: usize::MAX,
        component_bytes: usize::MAX,
        compile_time: Duration::MAX,
        compile_memory_bytes: usize::MAX,
    };

    /// Lowers what nobody asked for to what a tenant allows. What was asked for and is not allowed: the key, what was asked for, and
    /// what is allowed.
    pub(super) fn keep_within(&mut self, most: &Self) -> Vec<(&'static str, String, String)> {
        let default = Self::default();
        [
            ("memory", keep(&mut self.memory_bytes, default.memory_bytes, most.memory_bytes)),
            ("call_timeout", keep(&mut self.call_timeout, default.call_timeout, most.call_timeout)),
            ("output_rows", keep(&mut self.output_rows, default.output_rows, most.output_rows)),
            ("output_bytes", keep(&mut self.output_bytes, default.output_bytes, most.output_bytes)),
            (
                "output_logical_bytes",
                keep(&mut self.output_logical_bytes, default.output_logical_bytes, most.output_logical_bytes),
            ),
            ("rejections", keep(&mut self.rejections, default.rejections, most.rejections)),
            ("rejected_rows", keep(&mut self.rejected_rows, default.rejected_rows, most.rejected_rows)),
            ("state_bytes", keep(&mut self.state_bytes, default.state_bytes, most.state_bytes)),
            (
                "log_bytes_per_second",
                keep(&mut self.log_bytes_per_second, default.log_bytes_per_second, most.log_bytes_per_second),
            ),
            ("host_calls", keep(&mut self.host_calls, default.host_calls, most.host_calls)),
            ("host_call_bytes", keep(&mut self.host_call_bytes, default.host_call_bytes, most.host_call_bytes)),
            ("instances", keep(&mut self.instances, default.instances, most.instances)),
            ("component_bytes", keep(&mut self.component_bytes, default.component_bytes, most.component_bytes)),
            ("compile_time", keep(&mut self.compile_time, default.compile_time, most.compile_time)),
            (
                "compile_memory",
                keep(&mut self.compile_memory_bytes, default.compile_memory_bytes, most.compile_memory_bytes),
            ),
        ]
        .into_iter()
        .filter_map(|(key, refused)| refused.map(|(own, most)| (key, own, most)))
        .collect()
    }
}

/// One of them: what was asked for and what is allowed, where that is less. A default that is written down is not told from one that
/// is not.
fn keep<T: Copy + Debug + Ord>(own: &mut T, default: T, most: T) -> Option<(String, String)> {
    if *own <= most {
        return None;
    }
    if *own == default {
        *own = most;
        return None;
    }
    Some((format!("{own:?}"), format!("{most:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_lowered_and_what_somebody_did_is_told() {
        let most = PluginLimits {
            memory_bytes: 64 << 20,
            call_timeout: Duration::from_secs(1),
            output_rows: 2_000_000,
            ..PluginLimits::NONE
        };
        let mut limits = PluginLimits { call_timeout: Duration::from_secs(5), ..PluginLimits::default() };
        assert_eq!(limits.keep_within(&most), [("call_timeout", "5s".to_owned(), "1s".to_owned())]);
        assert_eq!((limits.memory_bytes, limits.output_rows), (64 << 20, 1_000_000));
        let mut limits = PluginLimits::default();
        assert!(limits.keep_within(&PluginLimits::NONE).is_empty());
        assert_eq!(limits, PluginLimits::default());
        assert!(limits.keep_within(&most).is_empty());
        let lowered =
            PluginLimits { memory_bytes: 64 << 20, call_timeout: Duration::from_secs(1), ..PluginLimits::default() };
        assert_eq!(limits, lowered);
        // Each of them.
        let least = Duration::from_nanos(1);
        let nothing = PluginLimits {
            memory_bytes: 0,
            call_timeout: least,
            output_rows: 0,
            output_bytes: 0,
            output_logical_bytes: 0,
            rejections: 0,
            rejected_rows: 0,
            state_bytes: 0,
            log_bytes_per_second: 0,
            host_calls: 0,
            host_call_bytes: 0,
            instances: 0,
            component_bytes: 0,
            compile_time: least,
            compile_memory_bytes: 0,
        };
        assert_eq!({ PluginLimits::NONE }.keep_within(&nothing).len(), 15);
        assert!(limits.keep_within(&PluginLimits::default()).is_empty());
        let mut limits = PluginLimits::default();
        assert!(limits.keep_within(&nothing).is_empty() && limits == nothing);
    }
}
