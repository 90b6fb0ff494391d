//! What every server of the tests begins with: a port, and a thread for each connection, until its value goes away.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context as _;

/// Takes connections; it ends with this value.
#[derive(Debug)]
pub(super) struct Listener {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Set when the value goes away.
    ended: Arc<AtomicBool>,
}

impl Listener {
    /// Serves each connection to a free port of loopback on a thread of its own. `ended` is set at the end, for whoever serves one
    /// then.
    pub(super) fn start(
        ended: Arc<AtomicBool>,
        serve: impl Fn(TcpStream) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), ended, serve)
    }

    /// The same at an address of the test's choice.
    pub(super) fn start_at(
        at: SocketAddr,
        ended: Arc<AtomicBool>,
        serve: impl Fn(TcpStream) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
        let address = listener.local_addr()?;
        let (is_over, serve) = (Arc::clone(&ended), Arc::new(serve));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                // A connection that breaks is what a proxy is for; whoever hears nothing asks again.
                thread::spawn(move || drop(serve(client)));
            }
        });
        Ok(Self { address, ended })
    }

    /// What clients take for the server.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// The address of the server behind `http://host:port`.
pub(super) fn server_of(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let host = endpoint.strip_prefix("http://").context("the proxy speaks plain HTTP only")?.trim_end_matches('/');
    host.to_socket_addrs()?.next().with_context(|| format!("no address for {host}"))
}
