//! Turns: which calls of plugins compute now.
//!
//! Comes in: polls of calls, each of a tenant. Goes out: the same polls, as many at once as there are processors. Promises: where
//! calls wait, the next turn goes to the tenant that has had least for its share (`tenants.NAME.cpu_share`); one that was silent
//! is let in before those that compute all the time, by a turn that is there for this alone; what a call waits is not taken from
//! its time. A turn is one poll, at most a tick of the epoch long, so nothing that is dropped, forgotten or stuck keeps one.
//!
//! This is start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996), where the length of a packet is
//! the time of a poll. The runtime has [`WORKERS_SPARE`] workers more than there are turns: were all of them in plugins, no timer
//! and no socket would be looked at.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::clock::CallClock;
use crate::{config::CPU_SHARE_DEFAULT, tenant::Tenant};

/// Workers of the runtime beyond the number of processors.
pub const WORKERS_SPARE: usize = 1;

/// What a silent tenant is ahead of those that compute, at most: about a tick of the epoch. More would let it keep the others
/// waiting for what it did not want before.
const CREDIT: u64 = 10_000_000;

/// Who of those that were told of a free turn does not come within so many ticks of the epoch loses its place: its task waits for
/// something else.
const TICKS_TO_COME: u64 = 2;

/// A call that waits inside the host (a sleep, a poll) meets no epoch; it is dropped this long after its deadline.
const GRACE: Duration = Duration::from_millis(50);

/// The call did not end in time.
#[derive(Debug)]
pub(super) struct Overdue;

/// All turns of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<State>>);

/// Who computes and who waits.
#[derive(Debug)]
struct State {
    /// Turns that nobody has.
    free: usize,
    /// Whether nobody has the turn of those that were silent.
    is_extra_free: bool,
    /// Virtual time: what the tenant had that was let in last, for its share.
    now: u64,
    /// Ticks of the epoch so far.
    ticks: u64,
    /// Number of the last ticket.
    tickets: u64,
    /// Tenants by name.
    accounts: BTreeMap<Arc<str>, Account>,
    /// Calls that wait, in the order in which they came; each instance has one at most.
    line: Vec<Waiting>,
}

/// One tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// What it had, in nanoseconds for a share of [`CPU_SHARE_DEFAULT`].
    had: u64,
    /// Its polls that run now.
    running: usize,
    /// Its desks; without any it is forgotten.
    desks: usize,
}

/// A call that waits.
#[derive(Debug)]
struct Waiting {
    /// Its ticket.
    ticket: u64,
    /// Its tenant.
    name: Arc<str>,
    /// Wakes its task.
    waker: Waker,
    /// The tick at which it was told to come.
    told: Option<u64>,
}

/// Which turn a poll has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// One of those for everybody.
    Common,
    /// That of tenants that were silent.
    Extra,
}

impl State {
    /// Of so many processors.
    fn new(processors: usize) -> Self {
        let (free, accounts) = (processors.max(1), BTreeMap::new());
        Self { free, is_extra_free: true, now: 0, ticks: 0, tickets: 0, accounts, line: Vec::new() }
    }

    /// A tenant; one that has had nothing where it is not known.
    fn account(&self, name: &Arc<str>) -> Account {
        self.accounts.get(name).copied().unwrap_or_default()
    }

    /// A call wants to be polled. Without a turn it waits, and `waker` is woken when there may be one.
    fn take(&mut self, name: &Arc<str>, ticket: u64, waker: &Waker) -> Option<Turn> {
        let is_waiting = self.line.iter().any(|one| one.name == *name);
        let mut account = self.account(name);
        if account.running == 0 && !is_waiting {
            // What was not wanted then is not owed now.
            account.had = account.had.max(self.now.saturating_sub(CREDIT));
        }
        let place = self.line.iter().position(|one| one.ticket == ticket).unwrap_or(self.line.len());
        let of_own = |(at, one): (usize, &Waiting)| one.name == *name && at < place;
        let own_ahead = self.line.iter().enumerate().filter(|one| of_own(*one)).count();
        let ahead = self.line.iter().filter(|one| self.account(&one.name).had < account.had).count();
        let turn = if self.free > ahead.saturating_add(own_ahead) {
            Some(Turn::Common)
        } else {
            (self.is_extra_free && own_ahead == 0 && account.is_owed(self.now)).then_some(Turn::Extra)
        };
        match (turn, self.line.get_mut(place)) {
            (Some(_), Some(_)) => drop(self.line.remove(place)),
            (Some(_), None) => {}
            // It came in vain, and is told again.
            (None, Some(waiting)) => {
                waiting.waker.clone_from(waker);
                waiting.told = None;
            }
            (None, None) => {
                self.line.push(Waiting { ticket, name: Arc::clone(name), waker: waker.clone(), told: None });
            }
        }
        match turn {
            Some(Turn::Common) => self.free -= 1,
            Some(Turn::Extra) => self.is_extra_free = false,
            None => {}
        }
        if turn.is_some() {
            account.running += 1;
            self.now = self.now.max(account.had);
        }
        if let Some(known) = self.accounts.get_mut(name) {
            *known = account;
        }
        turn
    }

    /// A poll has ended that took so long.
    fn give(&mut self, name: &Arc<str>, turn: Turn, took: Duration, share: u32) {
        match turn {
            Turn::Common => self.free += 1,
            Turn::Extra => self.is_extra_free = true,
        }
        if let Some(account) = self.accounts.get_mut(name) {
            account.running = account.running.saturating_sub(1);
            let cost = took.as_nanos() * u128::from(CPU_SHARE_DEFAULT) / u128::from(share.max(1));
            account.had = account.had.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        }
    }

    /// Tells those that come next that there is a turn; who has to be woken.
    fn call_up(&mut self) -> Vec<Waker> {
        if self.line.is_empty() || (self.free == 0 && !self.is_extra_free) {
            return Vec::new();
        }
        let mut order: Vec<_> = self.line.iter().map(|one| self.account(&one.name)).enumerate().collect();
        // Stable: who has had the same goes by when it came.
        order.sort_by_key(|(_, account)| account.had);
        let (mut common, mut extra, mut woken) = (self.free, self.is_extra_free, Vec::new());
        for (place, account) in order {
            if common > 0 {
                common -= 1;
            } else if extra && account.is_owed(self.now) {
                extra = false;
            } else {
                break;
            }
            if let Some(one) = self.line.get_mut(place).filter(|one| one.told.is_none()) {
                one.told = Some(self.ticks);
                woken.push(one.waker.clone());
            }
        }
        woken
    }

    /// The epoch has advanced.
    fn tick(&mut self) -> Vec<Waker> {
        self.ticks += 1;
        self.line.retain(|one| one.told.is_none_or(|told| self.ticks - told < TICKS_TO_COME));
        self.call_up()
    }
}

impl Account {
    /// Whether it has had less than those that are let in now, and has nothing running.
    fn is_owed(&self, now: u64) -> bool {
        self.running == 0 && self.had < now
    }
}

impl Turns {
    /// As many as there are processors.
    pub(super) fn new(processors: usize) -> Self {
        Self(Arc::new(Mutex::new(State::new(processors))))
    }

    /// What is known; a panic elsewhere leaves it usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch has advanced.
    pub(super) fn tick(&self) {
        let woken = self.state().tick();
        // Outside the lock: what a waker does is not ours.
        woken.into_iter().for_each(Waker::wake);
    }

    /// Where calls of a tenant are polled.
    pub(super) fn desk(&self, tenant: &Tenant) -> Desk {
        self.state().accounts.entry(Arc::clone(tenant.name())).or_default().desks += 1;
        Desk { turns: self.clone(), tenant: tenant.clone(), computed: Duration::ZERO }
    }
}

/// Where the calls of one instance are polled.
#[derive(Debug)]
pub(super) struct Desk {
    /// Those of the process.
    turns: Turns,
    /// Who pays.
    tenant: Tenant,
    /// How long its calls computed so far.
    computed: Duration,
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let name = self.tenant.name();
        if let Some(account) = state.accounts.get_mut(name) {
            account.desks = account.desks.saturating_sub(1);
            // Whoever goes and comes again at once has its debt forgiven; a plugin that is started takes longer than it saves.
            if account.desks == 0 {
                state.accounts.remove(name);
            }
        }
    }
}

impl Desk {
    /// How long calls computed since this was asked.
    pub(super) fn take_computed(&mut self) -> Duration {
        std::mem::take(&mut self.computed)
    }

    /// Polls a call in turns until it ends or its time is over.
    pub(super) async fn run<F: Future>(
        &mut self,
        clock: &CallClock,
        mut call: Pin<&mut F>,
    ) -> Result<F::Output, Overdue> {
        let mut timer: Pin<&mut Option<Sleep>> = pin!(None);
        let Self { turns, tenant, computed } = self;
        let mut ticket = Ticket { turns, tenant, computed, number: 0, since: None };
        poll_fn(|context| {
            let Some(held) = ticket.take(context.waker()) else { return Poll::Pending };
            if let Some(waited) = held.waited {
                tenant.waited_for_turn(waited);
                clock.put_off(waited);
            }
            let polled = call.as_mut().poll(context);
            drop(held);
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(Ok(answer));
            }
            if clock.take_gives_way() {
                ticket.since = Some(Instant::now());
            }
            loop {
                let ends = clock.deadline() + GRACE;
                match timer.as_mut().as_pin_mut() {
                    None => timer.set(Some(tokio::time::sleep_until(ends.into()))),
                    Some(sleep) => {
                        if sleep.poll(context).is_pending() {
                            return Poll::Pending;
                        }
                        if Instant::now() >= ends {
                            return Poll::Ready(Err(Overdue));
                        }
                        timer.set(None);
                    }
                }
            }
        })
        .await
    }
}

/// A call's place in the line.
struct Ticket<'a> {
    /// Those of the process.
    turns: &'a Turns,
    /// Who pays.
    tenant: &'a Tenant,
    /// How long the calls of the desk computed.
    computed: &'a mut Duration,
    /// Its number; 0 before it waited.
    number: u64,
    /// Since when it waits, in the line or to be polled.
    since: Option<Instant>,
}

impl Ticket<'_> {
    /// A turn, or a place in the line.
    fn take(&mut self, waker: &Waker) -> Option<Held<'_>> {
        let mut state = self.turns.state();
        if self.number == 0 {
            state.tickets += 1;
            self.number = state.tickets;
        }
        let turn = state.take(self.tenant.name(), self.number, waker);
        drop(state);
        let began = Instant::now();
        let Some(turn) = turn else {
            self.since.get_or_insert(began);
            return None;
        };
        let waited = self.since.take().map(|since| began.duration_since(since));
        Some(Held { turns: self.turns, tenant: self.tenant, turn, began, waited, computed: self.computed })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.since.is_none() {
            return;
        }
        let mut state = self.turns.state();
        state.line.retain(|one| one.ticket != self.number);
        let woken = state.call_up();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A turn that somebody has; paid for and given back when it is dropped, also by a panic.
struct Held<'a> {
    /// Those of the process.
    turns: &'a Turns,
    /// Who pays.
    tenant: &'a Tenant,
    /// Which.
    turn: Turn,
    /// Since when.
    began: Instant,
    /// How long the call waited for it.
    waited: Option<Duration>,
    /// How long the calls of the desk computed.
    computed: &'a mut Duration,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.tenant.computed(took);
        *self.computed += took;
        let mut state = self.turns.state();
        state.give(self.tenant.name(), self.turn, took, self.tenant.cpu_share());
        let woken = state.call_up();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Wake};

    use proptest::prelude::*;

    use super::*;
    use crate::config::TenantConfig;

    /// Says nothing to anybody.
    struct Deaf;

    impl Wake for Deaf {
        fn wake(self: Arc<Self>) {}
    }

    /// Calls of tenants that all want to compute for ever, on so many processors, with slices of so many milliseconds; how long each
    /// tenant computed.
    fn simulate(processors: usize, slices: usize, tenants: &[(u32, usize)], slice: impl Fn(usize) -> u64) -> Vec<u64> {
        let waker = Waker::from(Arc::new(Deaf));
        let mut state = State::new(processors);
        let names: Vec<Arc<str>> = (0..tenants.len()).map(|tenant| tenant.to_string().into()).collect();
        let mut calls = Vec::new();
        for (tenant, (_, of_tenant)) in tenants.iter().enumerate() {
            state.accounts.insert(Arc::clone(&names[tenant]), Account::default());
            calls.extend((0..*of_tenant).map(|_| tenant));
        }
        let (mut had, mut running) = (vec![0; tenants.len()], VecDeque::new());
        for at in 0..slices {
            for (ticket, tenant) in calls.iter().enumerate() {
                if running.iter().all(|(other, _)| *other != ticket)
                    && let Some(turn) = state.take(&names[*tenant], ticket as u64 + 1, &waker)
                {
                    running.push_back((ticket, turn));
                }
            }
            assert!(running.len() <= processors + 1 && running.len() >= processors.min(calls.len()));
            let (ticket, turn) = running.pop_front().unwrap();
            let (tenant, took) = (calls[ticket], slice(at));
            had[tenant] += took;
            state.give(&names[tenant], turn, Duration::from_millis(took), tenants[tenant].0);
            state.call_up();
        }
        had
    }

    proptest! {
        // Each is some thousand steps of up to fifty calls.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn tenants_that_always_want_get_what_their_shares_say(
            processors in 1_usize..5,
            tenants in proptest::collection::vec((1_u32..10, 5_usize..10), 2..6),
        ) {
            let tenants: Vec<_> = tenants.into_iter().map(|(share, calls)| (share * 100, calls)).collect();
            let had = simulate(processors, 2000, &tenants, |at| 1 + at as u64 % 10);
            let (all, shares) = (had.iter().sum::<u64>(), tenants.iter().map(|(share, _)| u64::from(*share)).sum::<u64>());
            for ((share, _), had) in tenants.iter().zip(&had) {
                let fair = all * u64::from(*share) / shares;
                prop_assert!(had.abs_diff(fair) <= fair / 20 + 100, "{had} where {fair} is fair: {tenants:?}");
            }
        }
    }

    #[test]
    fn who_was_silent_is_let_in_beside_those_that_compute_and_saves_nothing_up() {
        let waker = Waker::from(Arc::new(Deaf));
        let [busy, silent]: [Arc<str>; 2] = ["busy".into(), "silent".into()];
        let mut state = State::new(1);
        state.accounts.insert(Arc::clone(&busy), Account::default());
        state.accounts.insert(Arc::clone(&silent), Account::default());
        for _ in 0..100 {
            assert_eq!(state.take(&busy, 1, &waker), Some(Turn::Common));
            state.give(&busy, Turn::Common, Duration::from_millis(10), 100);
        }
        assert_eq!(state.take(&busy, 1, &waker), Some(Turn::Common));
        // A tenant that computes all the time waits, however many calls it has.
        assert_eq!(state.take(&busy, 2, &waker), None);
        assert_eq!(state.take(&silent, 3, &waker), Some(Turn::Extra));
        // One at a time.
        assert_eq!(state.take(&silent, 4, &waker), None);
        state.give(&silent, Turn::Extra, Duration::from_millis(25), 100);
        // It has had more than it was owed, and goes behind.
        assert_eq!(state.take(&silent, 4, &waker), None);
        state.give(&busy, Turn::Common, Duration::from_millis(1), 100);
        assert_eq!(state.take(&busy, 2, &waker), Some(Turn::Common));
    }

    #[test]
    fn who_is_told_and_does_not_come_keeps_nobody_waiting() {
        let waker = Waker::from(Arc::new(Deaf));
        let [first, second]: [Arc<str>; 2] = ["first".into(), "second".into()];
        let mut state = State::new(1);
        state.accounts.insert(Arc::clone(&first), Account { had: 1, ..Account::default() });
        state.accounts.insert(Arc::clone(&second), Account { had: 2, ..Account::default() });
        assert_eq!(state.take(&second, 1, &waker), Some(Turn::Common));
        assert_eq!(state.take(&second, 2, &waker), None);
        assert_eq!(state.take(&first, 3, &waker), Some(Turn::Extra));
        assert_eq!(state.take(&first, 4, &waker), None);
        state.give(&second, Turn::Common, Duration::ZERO, 100);
        assert_eq!(state.call_up().len(), 1, "the first tenant is told, once");
        assert!(state.call_up().is_empty());
        assert_eq!(state.take(&second, 2, &waker), None, "the other one is first in line");
        for _ in 0..=TICKS_TO_COME {
            state.tick();
        }
        assert_eq!(state.take(&second, 2, &waker), Some(Turn::Common));
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_or_panics_gives_its_turn_back_and_its_tenant_is_forgotten() {
        let turns = Turns::new(1);
        let tenant = Tenant::alone("shop", TenantConfig::default());
        let clock = CallClock::new();
        clock.begin(Duration::from_secs(60));
        for _ in 0..3 {
            let (mut desk, clock) = (turns.desk(&tenant), clock.clone());
            let panics = tokio::spawn(async move { desk.run(&clock, pin!(async { panic!("a fault of ours") })).await });
            assert!(panics.await.unwrap_err().is_panic());
        }
        let mut desk = turns.desk(&tenant);
        let mut other = turns.desk(&tenant);
        {
            let mut call = pin!(std::future::pending::<()>());
            let mut held = pin!(desk.run(&clock, call.as_mut()));
            assert!(futures::poll!(held.as_mut()).is_pending());
            assert_eq!(other.run(&clock, pin!(async { 5 })).await.unwrap(), 5);
        }
        assert!(turns.state().accounts.len() == 1 && turns.state().free == 1);
        drop(other);
        drop(desk);
        assert!(turns.state().accounts.is_empty() && turns.state().line.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_only_waits_ends_with_its_time() {
        let turns = Turns::new(1);
        let mut desk = turns.desk(&"shop".into());
        let clock = CallClock::new();
        clock.begin(Duration::from_millis(20));
        assert!(desk.run(&clock, pin!(std::future::pending::<()>())).await.is_err());
    }
}
