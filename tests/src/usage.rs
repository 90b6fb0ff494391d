//! What a process uses, as Linux counts it in /proc.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// What a process has used or holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Memory that is its own alone: heaps and stacks, not pages of its program, which the system takes back when it needs them.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// CPU time so far.
    pub cpu: Duration,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(id: u32) -> anyhow::Result<Self> {
        let folder = format!("/proc/{id}");
        let read =
            |name: &str| fs::read_to_string(format!("{folder}/{name}")).with_context(|| format!("{folder}/{name}"));
        let (memory, status, stat) = (read("smaps_rollup")?, read("status")?, read("stat")?);
        // Behind the name, which may have spaces: time as a user and in the system, in ticks of which Linux has had 100 a second for
        // user programs ever since.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0));
        Ok(Self {
            memory_bytes: number(&memory, "Anonymous:")? * 1024,
            threads: number(&status, "Threads:")?,
            cpu: Duration::from_millis(10) * ticks.sum::<u32>(),
        })
    }
}

/// The number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
    Ok(rest.split_whitespace().next().with_context(|| format!("no number behind {name}"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_and_time_that_is_spent_are_seen() -> anyhow::Result<()> {
        let before = Usage::of(std::process::id())?;
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        while Usage::of(std::process::id())?.cpu == before.cpu {}
        let after = Usage::of(std::process::id())?;
        assert!(after.memory_bytes >= before.memory_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.threads >= 1);
        drop(held);
        Ok(())
    }
}
