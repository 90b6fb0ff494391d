//! `source` of `type: redis`.

use std::{collections::BTreeSet, path::Path, time::Duration};

use sha2::{Digest as _, Sha256};

use super::tls;
use crate::config::{
    HdfsProtocol, RedisAddress, RedisConfig, RedisConnection, RedisEntry, RedisListRead, RedisServers, RedisStart,
    Secret, SinkKind,
    fault::Place,
    reader::Section,
    value::{boolean, choice, count, expected, positive_duration},
};

/// Keys of a Redis source that no other source has.
pub(super) const REDIS_KEYS: [&str; 21] = [
    "url",
    "host",
    "port",
    "db",
    "username",
    "password",
    "tls",
    "sentinel",
    "cluster",
    "nodes",
    "stream_keys",
    "list_keys",
    "list_read",
    "consumer_group",
    "consumer_name",
    "continuous",
    "entry",
    "payload_field",
    "session_timeout",
    "claim_idle",
    "deliveries_max",
];

/// Highest number of a database that is taken for one.
const DB_MAX: usize = 1_000_000;

/// Keys of Redis may have 512 MiB; those become folders and labels.
const KEY_BYTES_MAX: usize = 1_024;

/// What redis-py's arguments are called here, or why they are not needed.
const REDIS_PY: [(&str, &str); 21] = [
    ("host", "use source.host"),
    ("port", "use source.port"),
    ("db", "use source.db"),
    ("username", "use source.username"),
    ("password", "use source.password"),
    ("ssl", "use source.tls"),
    ("ssl_ca_certs", "use source.tls.ca_file"),
    ("ssl_certfile", "use source.tls.cert_file"),
    ("ssl_keyfile", "use source.tls.key_file"),
    ("ssl_cert_reqs", "certificates are always checked; source.tls.ca_file says which are believed"),
    ("ssl_check_hostname", "names of servers are always checked"),
    ("unix_socket_path", "only TCP and TLS are served"),
    ("decode_responses", "bytes are kept as they are; leave it out"),
    ("encoding", "bytes are kept as they are; leave it out"),
    ("socket_timeout", "a connection that is gone is noticed and made anew; leave it out"),
    ("socket_connect_timeout", "a connection that is gone is noticed and made anew; leave it out"),
    ("socket_keepalive", "a connection that is gone is noticed and made anew; leave it out"),
    ("retry_on_timeout", "what fails is always tried again; leave it out"),
    ("health_check_interval", "each lane asks its server every second or so; leave it out"),
    ("max_connections", "each lane has one connection; leave it out"),
    ("client_name", "connections have none; leave it out"),
];

/// Where a Redis is, and who we are.
pub(super) fn connection(section: &Section<'_>, folder: &Path) -> RedisConnection {
    let url = url(section);
    let nodes = addresses(section, "nodes", section.texts("nodes"));
    if url.is_some() {
        for key in ["host", "port", "db", "username", "password", "nodes"] {
            if section.has(key) {
                section.fault(key, "stands beside `url`, which says it already; leave one out");
            }
        }
    }
    let url = url.unwrap_or_default();
    let host = section.text("host").filter(|host| !host.is_empty());
    if let Some(host) = &host
        && (host.contains(['/', '@']) || host.contains(char::is_whitespace))
    {
        section.fault("host", expected("a host's name or IP address; a whole address goes into `url`", host));
    }
    let port = section.get("port", port).or(url.port).unwrap_or(6379);
    let address = RedisAddress { host: host.or(url.host).unwrap_or_else(|| "localhost".to_owned()), port };
    let db = section.get("db", database).or(url.db).unwrap_or(0);
    RedisConnection {
        servers: servers(section, address, nodes, db),
        username: section.text("username").filter(|name| !name.is_empty()).or(url.username),
        password: section.text("password").filter(|text| !text.is_empty()).map(Secret::new).or(url.password),
        db,
        tls: tls::tls(section, folder, url.is_tls),
    }
}

/// A Redis source.
pub(super) fn read(section: &Section<'_>, folder: &Path) -> RedisConfig {
    let given = |key: &'static str| section.has(key);
    let config = RedisConfig {
        connection: connection(section, folder),
        stream_keys: keys(section, "stream_keys"),
        list_keys: keys(section, "list_keys"),
        list_read: section.get_or("list_read", RedisListRead::Move, |text| {
            choice(text, &[("move", RedisListRead::Move), ("pop", RedisListRead::Pop)])
        }),
        consumer_group: name(section, "consumer_group"),
        consumer_name: name(section, "consumer_name"),
        is_continuous: section.get_or("continuous", true, boolean),
        entry: entry(section),
        start: section.get_or("start", RedisStart::Earliest, |text| {
            choice(text, &[("earliest", RedisStart::Earliest), ("latest", RedisStart::Latest)])
        }),
        session_timeout: section.get_or("session_timeout", Duration::from_secs(10), |text| {
            match positive_duration(text)? {
                timeout if timeout < Duration::from_secs(1) || timeout > Duration::from_secs(600) => {
                    Err(format!("{text} is not between 1s and 10m"))
                }
                timeout => Ok(timeout),
            }
        }),
        claim_idle: section.get_or("claim_idle", Duration::from_secs(60), |text| match positive_duration(text)? {
            idle if idle < Duration::from_secs(5) => Err(format!(
                "{text} is too short; at least 5s, or a consumer that is only slow would be taken for dead"
            )),
            idle => Ok(idle),
        }),
        deliveries_max: section.get("deliveries_max", count).map(|count| count as u64),
        scope: String::new(),
    };
    if config.stream_keys.is_empty() && config.list_keys.is_empty() && !given("stream_keys") && !given("list_keys") {
        section.fault("stream_keys", "is missing: a list of streams; or `list_keys`, a list of lists");
    }
    if config.list_keys.is_empty() && given("list_read") {
        section.fault("list_read", "has no meaning without `list_keys`");
    }
    if let Some(both) = config.list_keys.iter().find(|key| config.stream_keys.contains(key)) {
        section.fault("list_keys", format!("{both:?} is in `stream_keys` too; a key is one or the other"));
    }
    refuse_extra_config(section);
    config
}

/// The original gave these to redis-py; here each has a key, or needs none.
fn refuse_extra_config(section: &Section<'_>) {
    for (name, _, place) in section.pairs("extra_config") {
        let message = match REDIS_PY.iter().find(|(python, _)| *python == name) {
            Some((_, instead)) => format!("redis-py's name has no meaning here: {instead}"),
            None => "a Redis source has no further properties; config/full.yaml has its keys".to_owned(),
        };
        section.fault_at(place, &format!("extra_config.{name}"), message);
    }
}

/// A short text that differs for each place that a sink can write to.
pub(super) fn scope(sink: &SinkKind) -> String {
    let place = match sink {
        SinkKind::S3(s3) => format!("s3 {:?} {} {}", s3.endpoint_url, s3.bucket, s3.prefix),
        SinkKind::Gcs(gcs) => format!("gcs {:?} {} {}", gcs.endpoint_url, gcs.bucket, gcs.prefix),
        SinkKind::Azure(azure) => {
            format!("azure {:?} {} {} {}", azure.endpoint_url, azure.account, azure.container, azure.prefix)
        }
        SinkKind::Hdfs(hdfs) => {
            let url = match &hdfs.protocol {
                HdfsProtocol::Native { url, .. } => url.clone(),
                HdfsProtocol::Web { urls, .. } => urls.join(";"),
            };
            format!("hdfs {url} {}", hdfs.base_path)
        }
        SinkKind::Local(local) => format!(
            "local {}",
            std::path::absolute(&local.base_path).unwrap_or_else(|_| local.base_path.clone()).display()
        ),
    };
    let digest = Sha256::digest(place);
    digest.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What an address says.
#[derive(Default)]
struct Url {
    /// Host.
    host: Option<String>,
    /// Port.
    port: Option<u16>,
    /// Database.
    db: Option<i64>,
    /// User.
    username: Option<String>,
    /// Password.
    password: Option<Secret>,
    /// `rediss`.
    is_tls: bool,
}

/// `redis://user:password@host:6379/0`, as a whole. It may hold a password, so no part of it is told.
fn url(section: &Section<'_>) -> Option<Url> {
    section.get("url", |text| {
        let wrong = || "expected an address such as redis://user:password@host:6379/0, or rediss:// for TLS".to_owned();
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let is_tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong()),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err("an address with ? or # is not served; its options are keys beside it".to_owned());
        }
        let host = url.host_str().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let decoded = |part: &str| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| "the user or the password is not text once its % are taken away".to_owned())
        };
        let db = match url.path().trim_matches('/') {
            "" => None,
            number => Some(
                database(number).map_err(|_| "expected the number of a database behind host and port".to_owned())?,
            ),
        };
        Ok(Url {
            host: Some(decoded(&host)?),
            port: url.port(),
            db,
            username: Some(decoded(url.username())?).filter(|name| !name.is_empty()),
            password: url.password().map(|password| decoded(password).map(Secret::new)).transpose()?,
            is_tls,
        })
    })
}

/// Which servers there are.
fn servers(section: &Section<'_>, address: RedisAddress, nodes: Vec<RedisAddress>, db: i64) -> RedisServers {
    let is_cluster = section.get_or("cluster", false, boolean);
    let sentinel = section.section("sentinel");
    if sentinel.is_there() {
        let master_name = sentinel.required_text("master_name", "what the Sentinels call the master, such as mymaster");
        let texts = sentinel.required_texts("nodes", "a list of the Sentinels, host:port");
        let sentinels = addresses(&sentinel, "nodes", texts);
        let username = sentinel.text("username").filter(|name| !name.is_empty());
        let password = sentinel.text("password").filter(|text| !text.is_empty()).map(Secret::new);
        sentinel.finish();
        for (key, is_there) in [
            ("cluster", is_cluster),
            ("nodes", !nodes.is_empty()),
            ("host", section.has("host")),
            ("url", section.has("url")),
        ] {
            if is_there {
                section.fault(key, "stands beside `sentinel`, which says where the master is; leave one out");
            }
        }
        return RedisServers::Sentinel {
            master_name: master_name.unwrap_or_default(),
            nodes: sentinels,
            username,
            password,
        };
    }
    if is_cluster {
        if db != 0 {
            section.fault("db", "a cluster has database 0 only");
        }
        return RedisServers::Cluster(if nodes.is_empty() { vec![address] } else { nodes });
    }
    if !nodes.is_empty() {
        section.fault("nodes", "has no meaning here; it belongs to `cluster: true`");
    }
    RedisServers::Single(address)
}

/// What of an entry is the record. `payload_field` names the field; `entry: record` takes them all.
fn entry(section: &Section<'_>) -> RedisEntry {
    let field = section.text("payload_field");
    let is_record = section.get_or("entry", false, |text| choice(text, &[("field", false), ("record", true)]));
    match field {
        Some(_) if is_record => {
            section.fault("payload_field", "has no meaning with `entry: record`, which takes all fields");
            RedisEntry::Record
        }
        _ if is_record => RedisEntry::Record,
        Some(field) if field.is_empty() => {
            section.fault("payload_field", "must not be empty; leave it out for `value`");
            RedisEntry::Field(field)
        }
        field => RedisEntry::Field(field.unwrap_or_else(|| "value".to_owned())),
    }
}

/// Keys of streams or lists, each once.
fn keys(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
    let texts = section.texts(key);
    if section.has(key) && texts.is_empty() {
        section.fault(key, "expected at least one key");
    }
    for (name, place) in texts {
        if let Err(message) = check_key(&name) {
            section.fault_at(&place, key, message);
        } else if !seen.insert(name.clone()) {
            section.fault_at(&place, key, format!("{name:?} is there twice"));
        }
        names.push(name);
    }
    names
}

/// Whether a key can be read and can name a folder.
fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("a key of {} bytes; at most {KEY_BYTES_MAX}", key.len()));
    }
    if key.contains('*') {
        return Err(format!("{key:?}: patterns are not served; name each key"));
    }
    Ok(())
}

/// The name of a group or of a consumer.
fn name(section: &Section<'_>, key: &'static str) -> Option<String> {
    section.get(key, |text| match text {
        "" => Err("must not be empty; leave it out for the default".to_owned()),
        _ if text.len() > 200 => Err("is too long; at most 200 bytes".to_owned()),
        _ => Ok(text.to_owned()),
    })
}

/// A list of `host:port`.
fn addresses(section: &Section<'_>, key: &'static str, texts: Vec<(String, Place)>) -> Vec<RedisAddress> {
    let parse = |(text, place): (String, Place)| match address(&text) {
        Ok(address) => Some(address),
        Err(message) => {
            section.fault_at(&place, key, message);
            None
        }
    };
    texts.into_iter().filter_map(parse).collect()
}

/// `host:port`.
fn address(text: &str) -> Result<RedisAddress, String> {
    let wrong = || expected("host:port", text);
    let (host, port_text) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@']) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(RedisAddress { host: host.to_owned(), port: port(port_text).map_err(|_| wrong())? })
}

/// A port.
fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| expected("a port from 1 to 65535", text))
}

/// The number of a database.
fn database(text: &str) -> Result<i64, String> {
    let number: usize = text.parse().map_err(|_| expected("the number of a database, from 0", text))?;
    if number > DB_MAX {
        return Err(format!("{number} is too much; at most {DB_MAX}"));
    }
    i64::try_from(number).map_err(|_| expected("the number of a database, from 0", text))
}
