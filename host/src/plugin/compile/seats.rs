//! Who may run a compiler.
//!
//! Comes in: tenants that want to compile, any number at a time. Goes out: leave, for at most [`SEATS`] at once. Promises: a
//! tenant never has the last seat besides another one, so who compiles nothing yet waits only where others came before who had
//! nothing either; then for one compiler's time, which is limited. Waiting is not counted as compiling.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Compilers at once: each may take `limits.compile_memory` and all cores. Two for one tenant, so that one that takes long does not
/// hold up all its others, and one more for somebody else.
const SEATS: usize = 3;

/// The seats.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Who has one, and who waits.
    queue: Mutex<Queue>,
    /// Something in it is other than before.
    changed: Condvar,
}

/// Who has a seat, and who waits for one.
#[derive(Debug, Default)]
struct Queue {
    /// How many a tenant has; at least one.
    taken: BTreeMap<String, usize>,
    /// In the order in which they came, each with a number of its own.
    waiting: VecDeque<(u64, String)>,
    /// The next number.
    next: u64,
}

/// Leave to run one compiler.
pub(super) struct Seat<'a> {
    /// Where it is.
    seats: &'a Seats,
    /// Whose it is.
    tenant: &'a str,
}

impl Seats {
    /// Waits for a seat. Blocks.
    pub(super) fn take<'a>(&'a self, tenant: &'a str) -> Seat<'a> {
        let mut queue = self.queue();
        let number = queue.come(tenant);
        let mut queue = self
            .changed
            .wait_while(queue, |queue| queue.first() != Some(number))
            .unwrap_or_else(PoisonError::into_inner);
        queue.sit_down(number, tenant);
        drop(queue);
        // There may be room for one more.
        self.changed.notify_all();
        Seat { seats: self, tenant }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// The queue; a panic elsewhere leaves it usable.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.seats.queue().stand_up(self.tenant);
        self.seats.changed.notify_all();
    }
}

impl Queue {
    /// Somebody begins to wait.
    fn come(&mut self, tenant: &str) -> u64 {
        self.next += 1;
        self.waiting.push_back((self.next, tenant.to_owned()));
        self.next
    }

    /// Who may sit down now: of those who have the fewest seats, who came first.
    fn first(&self) -> Option<u64> {
        let all: usize = self.taken.values().sum();
        let own = |tenant: &String| self.taken.get(tenant).copied().unwrap_or(0);
        let may = |own: usize| all < if own == 0 { SEATS } else { SEATS - 1 };
        let waiting = self.waiting.iter().map(|(number, tenant)| (own(tenant), *number));
        waiting.filter(|(own, _)| may(*own)).min().map(|(_, number)| number)
    }

    /// Somebody who waited sits down.
    fn sit_down(&mut self, number: u64, tenant: &str) {
        self.waiting.retain(|(other, _)| *other != number);
        *self.taken.entry(tenant.to_owned()).or_default() += 1;
    }

    /// Somebody is done.
    fn stand_up(&mut self, tenant: &str) {
        if let Some(taken) = self.taken.get_mut(tenant) {
            *taken -= 1;
        }
        self.taken.retain(|_, taken| *taken > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_go_to_who_has_fewest_and_the_last_one_to_who_has_none() {
        let mut queue = Queue::default();
        let numbers: Vec<u64> = ["a", "a", "a", "b", "a", "c", "b"].map(|tenant| queue.come(tenant)).to_vec();
        let sit_down = |queue: &mut Queue, at: usize, tenant: &str| {
            assert_eq!(queue.first(), Some(numbers[at]));
            queue.sit_down(numbers[at], tenant);
        };
        sit_down(&mut queue, 0, "a");
        // Not the second of a, who came before.
        sit_down(&mut queue, 3, "b");
        sit_down(&mut queue, 5, "c");
        assert_eq!(queue.first(), None);
        queue.stand_up("c");
        // Those who wait have one each, and this is the last.
        assert_eq!(queue.first(), None);
        queue.stand_up("b");
        sit_down(&mut queue, 6, "b");
        queue.stand_up("b");
        sit_down(&mut queue, 1, "a");
        assert_eq!(queue.first(), None);
        queue.stand_up("a");
        queue.stand_up("a");
        assert!(queue.taken.is_empty());
        sit_down(&mut queue, 2, "a");
        sit_down(&mut queue, 4, "a");
        assert!(queue.waiting.is_empty());
    }
}
