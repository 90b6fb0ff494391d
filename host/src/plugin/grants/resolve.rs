//! From a host's name to the addresses that may be connected to.
//!
//! Promises: a name is looked up once for each connection, every address of the answer is judged, and the connection goes to
//! one that was: there is no second look-up that could answer something else. A look-up that hangs is bounded in number.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use futures::{FutureExt as _, future::BoxFuture};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::config::PrivateAddresses;

/// Look-ups of one server at the same time. The system's resolver blocks a thread each, and cannot be called off.
const LOOKUPS_MAX: usize = 4;

/// Looks names up.
pub(in crate::plugin) trait Lookup: Send + Sync {
    /// The addresses of a name.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
struct System {
    /// Bounds how many threads wait.
    slots: Arc<Semaphore>,
}

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let slots = Arc::clone(&self.slots);
        async move {
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            let looking = tokio::task::spawn_blocking(move || {
                let addresses = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|one| one.ip()).collect());
                drop(slot);
                addresses
            });
            looking.await.map_err(io::Error::other)?
        }
        .boxed()
    }
}

/// The system's resolver.
pub(in crate::plugin) fn system() -> Arc<dyn Lookup> {
    Arc::new(System { slots: Arc::new(Semaphore::new(LOOKUPS_MAX)) })
}

/// Answers only addresses that may be connected to.
pub(in crate::plugin) struct Checked {
    /// Asked first.
    pub(in crate::plugin) lookup: Arc<dyn Lookup>,
    /// Decides.
    pub(in crate::plugin) private: PrivateAddresses,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = self.lookup.lookup(name.as_str().to_owned());
        let private = self.private.clone();
        async move {
            let found = looking.await.map_err(NoAddress)?;
            let (allowed, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| private.allows(*address));
            if allowed.is_empty() {
                return Err(match refused.first() {
                    Some(address) => Prohibited(*address).into(),
                    None => NoAddress(io::Error::other("the name has no address")).into(),
                });
            }
            // The connection's port takes the place of 0.
            Ok(Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        }
        .boxed()
    }
}

/// A name leads to an address that may not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to {0}, which is no address of the public internet")]
pub(in crate::plugin) struct Prohibited(pub(in crate::plugin) IpAddr);

/// A name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the name cannot be looked up: {0}")]
pub(in crate::plugin) struct NoAddress(io::Error);

impl fmt::Debug for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checked").field("private", &self.private).finish_non_exhaustive()
    }
}
