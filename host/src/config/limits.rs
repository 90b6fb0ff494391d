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

/// One limit, by what it counts.
pub(super) enum Limit<'a> {
    /// Things.
    Count(&'a mut usize),
    /// Bytes.
    Bytes(&'a mut usize),
    /// Wall clock.
    Time(&'a mut Duration),
}

impl PluginLimits {
    /// No limits at all, for a tenant that sets some of them.
    pub(super) fn none() -> Self {
        let mut none = Self::default();
        for (_, limit) in none.table() {
            match limit {
                Limit::Count(most) | Limit::Bytes(most) => *most = usize::MAX,
                Limit::Time(most) => *most = Duration::MAX,
            }
        }
        none
    }

    /// Each of them, by its key in the configuration.
    pub(super) fn table(&mut self) -> [(&'static str, Limit<'_>); 15] {
        [
            ("memory", Limit::Bytes(&mut self.memory_bytes)),
            ("call_timeout", Limit::Time(&mut self.call_timeout)),
            ("output_rows", Limit::Count(&mut self.output_rows)),
            ("output_bytes", Limit::Bytes(&mut self.output_bytes)),
            ("output_logical_bytes", Limit::Bytes(&mut self.output_logical_bytes)),
            ("rejections", Limit::Count(&mut self.rejections)),
            ("rejected_rows", Limit::Count(&mut self.rejected_rows)),
            ("state_bytes", Limit::Bytes(&mut self.state_bytes)),
            ("log_bytes_per_second", Limit::Bytes(&mut self.log_bytes_per_second)),
            ("host_calls", Limit::Count(&mut self.host_calls)),
            ("host_call_bytes", Limit::Bytes(&mut self.host_call_bytes)),
            ("instances", Limit::Count(&mut self.instances)),
            ("component_bytes", Limit::Bytes(&mut self.component_bytes)),
            ("compile_time", Limit::Time(&mut self.compile_time)),
            ("compile_memory", Limit::Bytes(&mut self.compile_memory_bytes)),
        ]
    }

    /// Lowers what nobody asked for, which is what is not among the keys `asked`, to what a tenant allows. What was asked for and is
    /// not allowed: the key, what was asked for, and what is allowed.
    pub(super) fn keep_within(&mut self, asked: &[&str], mut most: Self) -> Vec<(&'static str, String, String)> {
        let both = self.table().into_iter().zip(most.table());
        let refused = both.filter_map(|((key, own), (_, most))| {
            let (own, most) = match (own, most) {
                (Limit::Time(own), Limit::Time(most)) => keep(own, *most, asked.contains(&key)),
                (Limit::Count(own) | Limit::Bytes(own), Limit::Count(most) | Limit::Bytes(most)) => {
                    keep(own, *most, asked.contains(&key))
                }
                (Limit::Time(_), _) | (_, Limit::Time(_)) => None,
            }?;
            Some((key, own, most))
        });
        refused.collect()
    }
}

/// One of them: what was asked for and what is allowed, where that is less.
fn keep<T: Copy + Debug + Ord>(own: &mut T, most: T, is_asked: bool) -> Option<(String, String)> {
    if is_asked && *own > most {
        return Some((format!("{own:?}"), format!("{most:?}")));
    }
    *own = most.min(*own);
    None
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
            ..PluginLimits::none()
        };
        let mut limits = PluginLimits { call_timeout: Duration::from_secs(5), ..PluginLimits::default() };
        assert_eq!(limits.keep_within(&["call_timeout"], most), [("call_timeout", "5s".to_owned(), "1s".to_owned())]);
        assert_eq!((limits.memory_bytes, limits.output_rows), (64 << 20, 1_000_000));
        // A default that is written out is asked for.
        let mut limits = PluginLimits::default();
        let told = limits.keep_within(&["memory", "output_rows"], most);
        assert_eq!(told, [("memory", "268435456".to_owned(), "67108864".to_owned())]);
        let mut limits = PluginLimits::default();
        let keys = limits.table().map(|(key, _)| key);
        assert!(limits.keep_within(&keys, PluginLimits::none()).is_empty());
        assert_eq!(limits, PluginLimits::default());
        assert!(limits.keep_within(&keys, PluginLimits::default()).is_empty());
        // Each of them.
        let mut nothing = PluginLimits::default();
        for (_, limit) in nothing.table() {
            match limit {
                Limit::Count(most) | Limit::Bytes(most) => *most = 0,
                Limit::Time(most) => *most = Duration::ZERO,
            }
        }
        assert_eq!(limits.keep_within(&keys, nothing).iter().map(|(key, ..)| *key).collect::<Vec<_>>(), keys);
        assert!(limits.keep_within(&[], nothing).is_empty() && limits == nothing);
    }
}
