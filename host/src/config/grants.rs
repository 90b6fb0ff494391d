//! What a plugin may reach besides its rows: what `plugins[].grants` becomes once it is checked. Nothing is the default.

use std::{fmt, path::PathBuf, time::Duration};

use super::{PrivateAddresses, RedisConnection, Secret};

/// Everything that one plugin was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Servers that it may send requests to.
    pub http: Vec<HttpGrant>,
    /// Buckets that it may look things up in; names are unique.
    pub keyvalue: Vec<BucketGrant>,
    /// What `wasi:config` answers; values may be secret.
    pub config: Vec<(String, Secret)>,
    /// Its environment; values may be secret.
    pub environment: Vec<(String, Secret)>,
    /// Folders that it may read.
    pub files: Vec<FolderGrant>,
}

/// One server that a plugin may send requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// A name in small letters, or an IP address without brackets. Nothing but this text matches.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub scheme: HttpScheme,
    /// In capital letters; at least one.
    pub methods: Vec<String>,
    /// Which addresses may be connected to that are not of the public internet.
    pub private: PrivateAddresses,
    /// Certificates that are believed besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to come about, look-up of the name and TLS included.
    pub connect_timeout: Duration,
    /// One request, from its start to the last byte of the response.
    pub timeout: Duration,
    /// Bytes of one request's body.
    pub request_bytes: usize,
    /// Bytes of one response's body.
    pub response_bytes: usize,
    /// Requests in one call of the plugin.
    pub requests_per_call: usize,
    /// Requests of one instance at the same time.
    pub concurrent: usize,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpScheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

impl HttpScheme {
    /// As it stands in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where none is named.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// One bucket that a plugin may look things up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketGrant {
    /// What the plugin calls it.
    pub bucket: String,
    /// What it may do there.
    pub access: Access,
    /// What is behind it.
    pub store: BucketStore,
    /// Bytes of one value.
    pub value_bytes: usize,
    /// How long one operation may take.
    pub timeout: Duration,
    /// Keys that may be asked for, written or listed in one call of the plugin.
    pub keys_per_call: usize,
}

/// What a plugin may do in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look up and list.
    Read,
    /// Set and delete.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// As it stands in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "read_write",
        }
    }

    /// Whether something may be done.
    #[must_use]
    pub fn allows(self, wanted: Self) -> bool {
        self == wanted || self == Self::ReadWrite
    }
}

/// What is behind a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketStore {
    /// Strings of a Redis, under a prefix.
    Redis(Box<RedisBucket>),
    /// Rows of a file, read once.
    Table(TableBucket),
}

/// Strings of a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisBucket {
    /// The server.
    pub connection: RedisConnection,
    /// Stands before every key; the plugin does not see it.
    pub prefix: String,
}

/// Rows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableBucket {
    /// A Parquet or CSV file, by its name.
    pub path: PathBuf,
    /// The column that is the key.
    pub key: String,
    /// The column that is the value; `None`: the row as JSON.
    pub value: Option<String>,
    /// Bytes of all keys and values.
    pub memory_bytes: usize,
}

/// One folder that a plugin may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderGrant {
    /// Where it is.
    pub path: PathBuf,
    /// Where the plugin sees it.
    pub name: String,
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, scheme, methods, private, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(formatter, "{} {}://{host}:{port}", methods.join(", "), scheme.as_str())?;
        match private {
            PrivateAddresses::Refused => Ok(()),
            PrivateAddresses::Allowed => formatter.write_str(", at private addresses too"),
            PrivateAddresses::Networks(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(formatter, ", in {} too", networks.join(", "))
            }
        }
    }
}

impl fmt::Display for BucketGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, access, store, .. } = self;
        write!(formatter, "{bucket} ({}) ", access.as_str())?;
        match store {
            BucketStore::Redis(redis) => {
                write!(formatter, "of Redis {}, keys {}*", redis.connection.servers, redis.prefix)
            }
            BucketStore::Table(table) => write!(formatter, "of {} by {}", table.path.display(), table.key),
        }
    }
}

impl fmt::Display for FolderGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} as {}", self.path.display(), self.name)
    }
}

impl Grants {
    /// A line for each thing granted, without secrets.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Self { http, keyvalue, config, environment, files } = self;
        let names = |pairs: &[(String, Secret)]| {
            let names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let mut lines: Vec<String> = http.iter().map(|grant| format!("http: {grant}")).collect();
        lines.extend(keyvalue.iter().map(|grant| format!("keyvalue: {grant}")));
        lines.extend(names(config).map(|names| format!("config: {names}")));
        lines.extend(names(environment).map(|names| format!("env: {names}")));
        lines.extend(files.iter().map(|grant| format!("files: {grant}")));
        lines
    }
}
