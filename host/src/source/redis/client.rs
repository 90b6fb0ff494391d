//! The way to the server: connecting, connecting again, and what an error means.
//!
//! One connection serves a lane, reading and renewing alike, so no command of ours ever blocks in the server. When it breaks, or
//! the server is no master any more, it is made anew at the next question, and Sentinels are asked anew who the master is.
//! Whoever asks decides how long to wait between tries ([`Backoff`]).

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

use super::fault::{Fault, judge};
use crate::{
    config::{ClientTls, RedisAddress, RedisConfig, RedisServers, Secret},
    error::PipelineError,
    telemetry::{metrics::Metrics, rate_limit::RateLimited},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same with all that is asked on the way: several Sentinels may be away, each for as long.
const CONNECT_TIMEOUT_IN_ALL: Duration = Duration::from_secs(20);

/// How long an answer may take: no command of ours waits, so a server that takes longer is gone or overwhelmed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a cluster's client goes another way by itself before we hear of it.
const CLUSTER_RETRIES: u32 = 4;

/// A server that is away is told about at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An open connection. Clones share it.
#[derive(Clone)]
enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

/// The way to the server of one lane.
pub(super) struct Server {
    /// Where it is.
    config: Arc<RedisConfig>,
    /// For logs.
    pipeline: Arc<str>,
    /// Where tries are counted.
    metrics: Metrics,
    /// The connection, while there is one. Held while one is made, so that only one is.
    link: Mutex<Option<Link>>,
    /// Counts connections.
    generation: AtomicU64,
    /// Whether the last question found nobody.
    is_away: AtomicBool,
    /// Keeps the log readable.
    away_log: RateLimited,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("servers", &self.config.servers).finish_non_exhaustive()
    }
}

impl Server {
    /// Nothing is connected yet.
    pub(super) fn new(config: Arc<RedisConfig>, pipeline: Arc<str>, metrics: Metrics) -> Self {
        Self {
            config,
            pipeline,
            metrics,
            link: Mutex::new(None),
            generation: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            away_log: RateLimited::new(LOG_INTERVAL),
        }
    }

    /// Which connection this is, counted from 1; 0 before the first. Another one may be to another server, which knows less.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks, once. `doing` is for people.
    pub(super) async fn ask(&self, command: &Cmd, doing: &str) -> Result<Value, Fault> {
        let (generation, mut link) = match self.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.heard(error, "connecting")),
        };
        let answer = match &mut link {
            Link::One(link) => link.req_packed_command(command).await,
            Link::Cluster(link) => link.req_packed_command(command).await,
        };
        match answer.and_then(whole) {
            Ok(value) => {
                if self.is_away.swap(false, Ordering::AcqRel) {
                    tracing::info!(pipeline = %self.pipeline, servers = %self.servers(), "Redis answers again");
                }
                Ok(value)
            }
            Err(error) => {
                let fault = self.heard(error, doing);
                if matches!(fault, Fault::Away(_)) {
                    self.drop_link(generation).await;
                }
                Err(fault)
            }
        }
    }

    /// The addresses, for messages.
    pub(super) fn servers(&self) -> String {
        let list = |nodes: &[RedisAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.config.servers {
            RedisServers::Single(address) => address.to_string(),
            RedisServers::Cluster(nodes) => list(nodes),
            RedisServers::Sentinel { master_name, nodes, .. } => {
                format!("{master_name} by the Sentinels {}", list(nodes))
            }
        }
    }

    /// What an error means; what passes by itself is counted and told.
    fn heard(&self, error: RedisError, doing: &str) -> Fault {
        let is_cluster = matches!(self.config.servers, RedisServers::Cluster(_));
        let fault = judge(error, doing, &self.servers(), self.config.username.as_deref(), is_cluster);
        if let Fault::Away(error) = &fault {
            self.metrics.retried("redis");
            self.is_away.store(true, Ordering::Release);
            if let Some(suppressed) = self.away_log.allow() {
                tracing::warn!(pipeline = %self.pipeline, servers = %self.servers(), doing, %error, suppressed,
                    "Redis does not answer as it should: waiting for it");
            }
        }
        fault
    }

    /// The connection; made when there is none.
    async fn link(&self) -> Result<(u64, Link), RedisError> {
        let mut link = self.link.lock().await;
        if let Some(open) = &*link {
            return Ok((self.generation(), open.clone()));
        }
        let made = tokio::time::timeout(CONNECT_TIMEOUT_IN_ALL, Box::pin(connect(&self.config)));
        let open = made.await.unwrap_or_else(|_late| {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into())
        })?;
        *link = Some(open.clone());
        Ok((self.generation.fetch_add(1, Ordering::AcqRel) + 1, open))
    }

    /// Lets a connection go that broke, unless another one was made meanwhile.
    async fn drop_link(&self, generation: u64) {
        let mut link = self.link.lock().await;
        if self.generation() == generation {
            *link = None;
        }
    }
}

/// An answer that is no error. Errors within lists come of transactions only, which we do not use.
fn whole(answer: Value) -> Result<Value, RedisError> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

/// Makes a connection.
async fn connect(config: &RedisConfig) -> Result<Link, RedisError> {
    let certificates = config.tls.as_ref().map(certificates).transpose()?;
    let settings = settings(config.username.as_deref(), config.password.as_ref())
        .set_db(config.db)
        .set_lib_name("fs-data-sink", env!("CARGO_PKG_VERSION"));
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    match &config.servers {
        RedisServers::Single(address) => {
            let info = info(address, certificates.is_some(), settings)?;
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            };
            Ok(Link::One(client.get_multiplexed_async_connection_with_config(&options).await?))
        }
        RedisServers::Sentinel { master_name, nodes, username, password } => {
            let nodes = nodes.iter().map(|node| place(node, certificates.is_some()));
            let mut builder = SentinelClientBuilder::new(nodes, master_name, SentinelServerType::Master)?
                .set_client_to_redis_db(config.db);
            if let Some(name) = &config.username {
                builder = builder.set_client_to_redis_username(name);
            }
            if let Some(password) = &config.password {
                builder = builder.set_client_to_redis_password(password.reveal());
            }
            if let Some(name) = username {
                builder = builder.set_client_to_sentinel_username(name);
            }
            if let Some(password) = password {
                builder = builder.set_client_to_sentinel_password(password.reveal());
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_certificates(certificates);
            }
            let mut client = builder.build()?;
            Ok(Link::One(client.get_async_connection_with_config(&options).await?))
        }
        RedisServers::Cluster(nodes) => {
            let nodes: Vec<_> = nodes
                .iter()
                .map(|node| info(node, certificates.is_some(), settings.clone()))
                .collect::<Result<_, _>>()?;
            let mut builder = ClusterClientBuilder::new(nodes)
                .retries(CLUSTER_RETRIES)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(ANSWER_TIMEOUT);
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            Ok(Link::Cluster(builder.build()?.get_async_connection().await?))
        }
    }
}

/// Who we are.
fn settings(username: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default();
    if let Some(name) = username {
        settings = settings.set_username(name);
    }
    if let Some(password) = password {
        settings = settings.set_password(password.reveal());
    }
    settings
}

/// An address as the client takes it.
fn place(address: &RedisAddress, is_tls: bool) -> ConnectionAddr {
    let RedisAddress { host, port } = address.clone();
    if is_tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// An address with who we are.
fn info(address: &RedisAddress, is_tls: bool, settings: RedisConnectionInfo) -> Result<ConnectionInfo, RedisError> {
    Ok(place(address, is_tls).into_connection_info()?.set_redis_settings(settings))
}

/// The certificates; read for each connection, so that files may be replaced.
fn certificates(tls: &ClientTls) -> Result<TlsCertificates, RedisError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| {
            RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "a file of source.tls cannot be read",
                format!("{}: {error}", path.display()),
            ))
        })
    };
    let client_tls = match &tls.identity {
        None => None,
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
    };
    let root_cert = tls.ca_file.as_deref().map(read).transpose()?;
    Ok(TlsCertificates { client_tls, root_cert })
}

/// How long to wait after a failure: longer each time, and never as long as somebody else, so that a server that comes back
/// is not met by all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next pause at most.
    next: Duration,
}

impl Backoff {
    /// The first pause at most.
    const FIRST: Duration = Duration::from_millis(100);

    /// The longest pause.
    const LONGEST: Duration = Duration::from_secs(5);

    /// Nothing has failed.
    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// Something failed: how long to wait now.
    pub(super) fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(Self::LONGEST);
        // Between a half and the whole.
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        most.mul_f64(0.5 + share / 2.0)
    }
}

/// What a thing that Redis said is not.
pub(super) fn strange(doing: &str) -> PipelineError {
    PipelineError::stop(format!(
        "{doing}: Redis answered in a form that this program does not know; is it Redis 6 or newer?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        assert!((Backoff::FIRST / 2..=Backoff::FIRST).contains(&first), "{first:?}");
        for _ in 0..20 {
            assert!(backoff.pause() <= Backoff::LONGEST);
        }
        assert!(backoff.pause() >= Backoff::LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause() <= Backoff::FIRST);
    }
}
