//! Connections to Redis: one server, one watched by Sentinels, or a cluster, with users and TLS. The source and plugins'
//! buckets share it.
//!
//! Promises: one try, in bounded time; certificates and names are checked. Whoever asks decides what an error means and when
//! to try again.

use std::{fmt, fs, path::Path, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use crate::config::{ClientTls, RedisAddress, RedisConnection, RedisServers, Secret};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: no command of ours waits, so a server that takes longer is gone or overwhelmed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a cluster's client goes another way by itself before we hear of it.
const CLUSTER_RETRIES: u32 = 4;

/// An open connection. Clones share it.
#[derive(Clone)]
pub enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::One(_) => "One",
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl Link {
    /// Asks, once.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::One(link) => link.req_packed_command(command).await,
            Self::Cluster(link) => link.req_packed_command(command).await,
        };
        answer.and_then(whole)
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
pub async fn connect(config: &RedisConnection) -> Result<Link, RedisError> {
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
                "a file of `tls` cannot be read",
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
