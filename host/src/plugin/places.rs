//! How many plugin instances live at once: in the process, of one tenant, and of one plugin.
//!
//! Comes in: who wants to start an instance. Goes out: a [`Place`], which is free again when it is dropped. Promises:
//! there are never more instances than places; who finds none takes that of the instance that is idle longest, and
//! waits only while all are at work or hold rows. So one plugin that has taken all places holds up nobody for good. Who has all
//! that its tenant may have takes from that tenant alone.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::tenant::{Tenant, TenantLimit};

/// Longest time between two looks for a place.
const LOOK: Duration = Duration::from_secs(1);

/// Places for instances, `T`. Cheap to clone.
pub(super) struct Places<T>(Arc<Inner<T>>);

/// What all who ask share.
struct Inner<T> {
    /// Places of the process.
    most: usize,
    /// What changes.
    state: Mutex<State<T>>,
    /// Told when a place becomes free or an instance idle.
    freed: Notify,
}

/// What changes.
struct State<T> {
    /// Places taken.
    used: usize,
    /// The same by plugin.
    used_by: BTreeMap<u64, usize>,
    /// Number of the next plugin or idle instance.
    next: u64,
    /// Idle instances with whose they are; the first one is idle longest.
    idle: BTreeMap<u64, (Holder, T)>,
}

/// A plugin as the places know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// Its number.
    number: u64,
    /// Most instances at once.
    most: usize,
}

/// Whose an instance is.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// The plugin's number.
    plugin: u64,
    /// Whose pipeline it is in.
    tenant: Tenant,
}

/// The right to one instance.
pub(super) struct Place<T> {
    /// Of which places.
    places: Places<T>,
    /// Whose it is.
    holder: Holder,
}

/// An idle instance, which may be taken away to make room.
pub(super) struct Idle<T> {
    /// Where it waits.
    places: Places<T>,
    /// Its number there.
    number: u64,
}

impl<T> Clone for Places<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Places<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Places").field("used", &self.state().used).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Place").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Idle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Idle").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<T> Places<T> {
    /// So many places.
    pub(super) fn new(most: usize) -> Self {
        let state = State { used: 0, used_by: BTreeMap::new(), next: 0, idle: BTreeMap::new() };
        Self(Arc::new(Inner { most, state: Mutex::new(state), freed: Notify::new() }))
    }

    /// A plugin that may have so many instances at once.
    pub(super) fn owner(&self, most: usize) -> Owner {
        Owner { number: self.state().take_number(), most }
    }

    /// A place, if there is one or an idle instance gives its own.
    pub(super) fn try_take(&self, owner: Owner, tenant: &Tenant) -> Option<Place<T>> {
        loop {
            let mut state = self.state();
            let own = state.used_by.get(&owner.number).copied().unwrap_or(0);
            let (of_plugin, of_tenant) = (own >= owner.most, !tenant.may_start_instance());
            if !of_plugin && !of_tenant && state.used < self.0.most {
                state.used += 1;
                state.used_by.insert(owner.number, own + 1);
                // Under the lock, so that no two take the last one.
                tenant.instances_changed(1);
                let holder = Holder { plugin: owner.number, tenant: tenant.clone() };
                return Some(Place { places: self.clone(), holder });
            }
            drop(state);
            if of_tenant {
                tenant.hit(TenantLimit::PluginInstances);
            }
            // Only one of its own helps a plugin, or a tenant, that has all it may have.
            let helps = |holder: &Holder| {
                (!of_plugin || holder.plugin == owner.number) && (!of_tenant || holder.tenant.name() == tenant.name())
            };
            if !self.make_room(helps) {
                return None;
            }
        }
    }

    /// A place as soon as there is one. Cancel-safe.
    pub(super) async fn take(&self, owner: Owner, tenant: &Tenant) -> Place<T> {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that becomes free is missed.
            freed.as_mut().enable();
            if let Some(place) = self.try_take(owner, tenant) {
                return place;
            }
            // A budget that was raised tells nobody here.
            let _ = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// Lets go of the instance that is idle longest, whosever it is; waits until one is idle or gone where none is.
    pub(super) async fn wait_for_room(&self) {
        let freed = self.0.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if !self.make_room(|_| true) {
            freed.await;
        }
    }

    /// Lets go of the instance of a tenant that is idle longest; whether there was one.
    pub(super) fn make_room_of(&self, tenant: &Tenant) -> bool {
        self.make_room(|holder| holder.tenant.name() == tenant.name())
    }

    /// An instance has nothing to do and holds nothing.
    pub(super) fn park(&self, holder: Holder, instance: T) -> Idle<T> {
        let mut state = self.state();
        let number = state.take_number();
        state.idle.insert(number, (holder, instance));
        drop(state);
        self.0.freed.notify_waiters();
        Idle { places: self.clone(), number }
    }

    /// Drops the instance that is idle longest of those whose plugin is asked for; whether there was one.
    fn make_room(&self, is_asked_for: impl Fn(&Holder) -> bool) -> bool {
        let mut state = self.state();
        let longest = state.idle.iter().find(|(_, (holder, _))| is_asked_for(holder)).map(|(number, _)| *number);
        let taken = longest.and_then(|number| state.idle.remove(&number));
        // Its place becomes free as it is dropped, which asks for the lock.
        drop(state);
        taken.is_some()
    }

    /// What changes; a panic elsewhere leaves it usable.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// A number that nobody had.
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl<T> Place<T> {
    /// Whose it is.
    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Where it is.
    pub(super) fn places(&self) -> &Places<T> {
        &self.places
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.used = state.used.saturating_sub(1);
        match state.used_by.get_mut(&self.holder.plugin) {
            Some(used) if *used > 1 => *used -= 1,
            _ => drop(state.used_by.remove(&self.holder.plugin)),
        }
        self.holder.tenant.instances_changed(-1);
        drop(state);
        self.places.0.freed.notify_waiters();
    }
}

impl<T> Idle<T> {
    /// The instance, unless it was taken away.
    pub(super) fn wake(self) -> Option<T> {
        self.remove()
    }

    /// Takes it out, so that the lock is free when it is dropped.
    fn remove(&self) -> Option<T> {
        self.places.state().idle.remove(&self.number).map(|(_, instance)| instance)
    }
}

impl<T> Drop for Idle<T> {
    fn drop(&mut self) {
        drop(self.remove());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TenantConfig;

    /// An instance that is nothing but its place.
    struct Instance(Option<Place<Self>>);

    /// A place, as an instance.
    fn start(places: &Places<Instance>, owner: Owner) -> Option<Instance> {
        start_for(places, owner, &Tenant::from("shop"))
    }

    /// The same of a tenant.
    fn start_for(places: &Places<Instance>, owner: Owner, tenant: &Tenant) -> Option<Instance> {
        places.try_take(owner, tenant).map(|place| Instance(Some(place)))
    }

    /// Parks an instance.
    fn park(places: &Places<Instance>, instance: Instance) -> Idle<Instance> {
        places.park(instance.0.as_ref().unwrap().holder().clone(), instance)
    }

    #[test]
    fn a_plugin_has_its_own_limit_and_all_share_another() {
        let places = Places::new(3);
        let (small, large) = (places.owner(1), places.owner(100));
        let first = start(&places, small).unwrap();
        assert!(start(&places, small).is_none());
        let others = [start(&places, large).unwrap(), start(&places, large).unwrap()];
        assert!(start(&places, large).is_none());
        drop(first);
        assert!(start(&places, large).is_some() && start(&places, small).is_some());
        drop(others);
        assert_eq!(places.state().used, 0);
        assert!(places.state().used_by.is_empty());
    }

    #[test]
    fn the_instance_that_is_idle_longest_gives_its_place() {
        let places = Places::new(3);
        let (a, b) = (places.owner(2), places.owner(3));
        let [first, second, third] = [a, a, b].map(|owner| start(&places, owner).unwrap());
        let (third, first, second) = (park(&places, third), park(&places, first), park(&places, second));
        // A third one of `a` costs one of `a`, though that of `b` is idle longer.
        let another = start(&places, a).unwrap();
        assert!(first.wake().is_none());
        let last = start(&places, b).unwrap();
        assert!(third.wake().is_none());
        let second = second.wake().unwrap();
        assert!(start(&places, b).is_none(), "none is idle");
        drop((another, last, second));
        assert_eq!(places.state().used, 0);
    }

    #[test]
    fn a_tenant_at_its_limit_takes_from_itself_alone() {
        let places = Places::new(10);
        let limits = TenantConfig { plugin_instances: Some(2), ..TenantConfig::default() };
        let (shop, bank) = (Tenant::alone("shop", limits), Tenant::from("bank"));
        let (a, b) = (places.owner(9), places.owner(9));
        let of_bank = park(&places, start_for(&places, a, &bank).unwrap());
        let first = start_for(&places, a, &shop).unwrap();
        let second = park(&places, start_for(&places, b, &shop).unwrap());
        let third = start_for(&places, a, &shop).unwrap();
        assert!(second.wake().is_none());
        assert!(start_for(&places, b, &shop).is_none());
        assert_eq!((shop.usage().instances, shop.hits(TenantLimit::PluginInstances)), (2, 2));
        assert!(start_for(&places, b, &bank).is_some());
        drop((first, third));
        assert_eq!(shop.usage().instances, 0);
        assert!(of_bank.wake().is_some());
    }

    #[test]
    fn an_idle_instance_goes_with_whoever_owned_it() {
        let places = Places::new(1);
        let owner = places.owner(1);
        drop(park(&places, start(&places, owner).unwrap()));
        assert_eq!(places.state().used, 0);
        assert!(places.state().idle.is_empty());
    }

    #[tokio::test]
    async fn who_finds_none_waits_until_one_is_free_or_idle() {
        let places = Places::new(1);
        let owner = places.owner(1);
        for is_parked in [true, false] {
            let busy = start(&places, owner).unwrap();
            let waiting = tokio::spawn({
                let places = places.clone();
                async move { places.take(owner, &Tenant::from("shop")).await }
            });
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!waiting.is_finished());
            let idle = is_parked.then_some(busy).map(|busy| park(&places, busy));
            drop(waiting.await.unwrap());
            drop(idle);
        }
    }
}
