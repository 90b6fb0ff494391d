//! `plugins[].grants`: what a plugin may reach besides its rows.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{redis, tls};
use crate::config::{
    Access, BucketGrant, BucketStore, FolderGrant, Grants, HttpGrant, HttpScheme, PrivateAddresses, RedisBucket,
    Secret, TableBucket,
    node::Value,
    reader::{Named, Section},
    value::{boolean, choice, count_up_to, expected, positive_duration, size},
};

/// Longest time limit of one request or operation: a call that waits longer holds its lane up for no good.
const TIMEOUT_MAX: Duration = Duration::from_secs(5 * 60);
/// Largest body that is handed over in memory.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Largest value of a bucket.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Largest table: it is held in memory once a pipeline.
const TABLE_BYTES_MAX: usize = 4 << 30;
/// Most requests or keys of one call.
const PER_CALL_MAX: usize = 1_000_000;
/// Most requests of one instance at the same time.
const CONCURRENT_MAX: usize = 64;
/// Methods that may be granted; CONNECT and TRACE would make a tunnel or a mirror of the server.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Folders that are no data.
const FORBIDDEN_FOLDERS: [&str; 4] = ["/", "/proc", "/sys", "/dev"];

/// All grants of a plugin. `tenant` begins the keys of its buckets where nothing else is said.
pub(super) fn read(section: Section<'_>, folder: &Path, tenant: &str) -> Grants {
    let mut buckets = BTreeSet::new();
    let mut keyvalue = Vec::new();
    for (place, bucket) in list(&section, "keyvalue", "{bucket: customers, redis: {url: redis://localhost}}")
        .filter_map(|one| bucket(one, folder, tenant))
    {
        if !buckets.insert(bucket.bucket.clone()) {
            section.fault_at(&place, "keyvalue", format!("a second bucket is called {:?}", bucket.bucket));
        }
        keyvalue.push(bucket);
    }
    let grants = Grants {
        http: list(&section, "http", "{host: api.example.com}").filter_map(|one| http(one, folder)).collect(),
        keyvalue,
        config: pairs(&section, "config", |_| Ok(())),
        environment: pairs(&section, "env", environment_name),
        files: list(&section, "files", "{path: ./lookup, as: /lookup}")
            .filter_map(|one| self::folder(one, folder))
            .collect(),
    };
    section.finish();
    grants
}

/// The sections of a list; keys and values in its place are a fault.
fn list<'a>(section: &Section<'a>, key: &'static str, example: &str) -> impl Iterator<Item = Section<'a>> + use<'a> {
    let is_map = section.node(key).is_some_and(|node| matches!(&node.value, Value::Map(all) if !all.is_empty()));
    if is_map {
        section.fault(key, format!("expected a list such as [{example}], found keys and values"));
    }
    let sections: Vec<Named<'a>> = if is_map { Vec::new() } else { section.sections(key) };
    sections.into_iter().map(|(_, section)| section)
}

/// Names and values, which may be secret.
fn pairs(
    section: &Section<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Vec<(String, Secret)> {
    let mut pairs = Vec::new();
    for (name, value, place) in section.pairs(key) {
        if let Err(message) = check(name) {
            section.fault_at(place, key, message);
        }
        pairs.push((name.to_owned(), Secret::new(value)));
    }
    pairs
}

/// Whether a name can stand in an environment.
fn environment_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) { Err(expected("the name of a variable", name)) } else { Ok(()) }
}

/// One server.
fn http(section: Section<'_>, folder: &Path) -> Option<HttpGrant> {
    let host = section
        .required_text("host", "the server's name or IP address")
        .and_then(|text| host(&text).map_err(|message| section.fault("host", message)).ok());
    let schemes = [("https", HttpScheme::Https), ("http", HttpScheme::Http)];
    let scheme = section.get_or("scheme", HttpScheme::Https, |text| choice(text, &schemes));
    let port = section.get_or("port", scheme.port(), |text| {
        text.parse().ok().filter(|port| *port > 0).ok_or_else(|| expected("a port from 1 to 65535", text))
    });
    let private = private(&section);
    if let Some(Ok(address)) = host.as_deref().map(str::parse::<IpAddr>)
        && !private.allows(address)
    {
        let message =
            format!("{address} is no address of the public internet; add `allow_private: true` if it is meant");
        section.fault("host", message);
    }
    let ca_file = tls::file(&section, folder, "ca_file", "a file of certificates in PEM");
    if ca_file.is_some() && scheme == HttpScheme::Http {
        section.fault("ca_file", "has no meaning with `scheme: http`");
    }
    let timeout = section.get_or("timeout", Duration::from_secs(1), time_limit);
    let grant = HttpGrant {
        host: host.unwrap_or_default(),
        port,
        scheme,
        methods: methods(&section),
        private,
        ca_file,
        connect_timeout: section.get_or("connect_timeout", timeout, time_limit),
        timeout,
        request_bytes: section.get_or("request_bytes", 64 << 10, size_up_to(BODY_BYTES_MAX)),
        response_bytes: section.get_or("response_bytes", 1 << 20, size_up_to(BODY_BYTES_MAX)),
        requests_per_call: section.get_or("requests_per_call", 100, count_up_to(PER_CALL_MAX)),
        concurrent: section.get_or("concurrent", 8, count_up_to(CONCURRENT_MAX)),
    };
    let is_there = section.is_there();
    section.finish();
    is_there.then_some(grant)
}

/// A host as it is compared: a name in small letters, or an IP address in its usual form.
fn host(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if text.contains('*') {
        return Err(format!("{text:?}: patterns are not served; name each host"));
    }
    let is_name = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
    };
    // A last part of digits would be read as an IP address by some, and as a name by others.
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if text.len() > 253 || is_number || !text.split('.').all(is_name) {
        return Err(expected(
            "a host's name such as api.example.com, or an IP address, without a scheme or port",
            text,
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// What may be asked; reading where nothing is said.
fn methods(section: &Section<'_>) -> Vec<String> {
    let mut methods = Vec::new();
    for (text, place) in section.texts("methods") {
        let method = text.to_ascii_uppercase();
        if METHODS.contains(&method.as_str()) {
            methods.push(method);
        } else {
            section.fault_at(&place, "methods", expected(&format!("one of {}", METHODS.join(", ")), &text));
        }
    }
    if methods.is_empty() {
        if section.has("methods") && section.texts("methods").is_empty() {
            section.fault("methods", "expected at least one; leave it out for GET");
        }
        methods.push("GET".to_owned());
    }
    methods
}

/// Which private addresses may be connected to.
pub(super) fn private(section: &Section<'_>) -> PrivateAddresses {
    match section.scalar("allow_private").map(boolean) {
        Some(Ok(true)) => return PrivateAddresses::Allowed,
        Some(Ok(false)) => return PrivateAddresses::Refused,
        None | Some(Err(_)) => {}
    }
    let mut networks = Vec::new();
    for (text, place) in section.texts("allow_private") {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if let Ok(network) = network {
            networks.push(network.trunc());
        } else {
            let message = expected("true, false, or networks such as [10.0.0.0/8]", &text);
            section.fault_at(&place, "allow_private", message);
        }
    }
    if networks.is_empty() { PrivateAddresses::Refused } else { PrivateAddresses::Networks(networks) }
}

/// One bucket with its place.
fn bucket(section: Section<'_>, folder: &Path, tenant: &str) -> Option<(crate::config::fault::Place, BucketGrant)> {
    let bucket = section.required_text("bucket", "the name by which the plugin opens it").unwrap_or_default();
    let accesses = [("read", Access::Read), ("write", Access::Write), ("read_write", Access::ReadWrite)];
    let access = section.get_or("access", Access::Read, |text| choice(text, &accesses));
    let (redis, table) = (section.section("redis"), section.section("table"));
    let store = match (redis.is_there(), table.is_there()) {
        (true, false) => Some(redis_bucket(redis, folder, || format!("{tenant}:{bucket}:"))),
        (false, true) => {
            if access != Access::Read {
                section.fault("access", "a table can only be read; `redis` is for writing");
            }
            table_bucket(table, folder)
        }
        (true, true) => {
            section.fault("table", "stands beside `redis`; a bucket is one or the other");
            None
        }
        (false, false) => {
            if section.is_there() && redis.node_is_missing() && table.node_is_missing() {
                section.fault("redis", "is missing: where the keys are, such as {url: redis://localhost}; or `table`");
            }
            None
        }
    };
    let value_bytes = section.get_or("value_bytes", 64 << 10, size_up_to(VALUE_BYTES_MAX));
    let timeout = section.get_or("timeout", Duration::from_millis(500), time_limit);
    let keys_per_call = section.get_or("keys_per_call", 100_000, count_up_to(PER_CALL_MAX));
    let place = section.place().clone();
    section.finish();
    Some((place, BucketGrant { bucket, access, store: store?, value_bytes, timeout, keys_per_call }))
}

/// Strings of a Redis.
fn redis_bucket(section: Section<'_>, folder: &Path, usual: impl FnOnce() -> String) -> BucketStore {
    let bucket = RedisBucket {
        connection: redis::connection(&section, folder),
        prefix: section.text("prefix").unwrap_or_else(usual),
    };
    section.finish();
    BucketStore::Redis(Box::new(bucket))
}

/// Rows of a file.
fn table_bucket(section: Section<'_>, folder: &Path) -> Option<BucketStore> {
    let path = section.required_text("path", "a Parquet or CSV file").map(|text| resolve(&section, folder, &text));
    if let Some(path) = &path {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        if !matches!(ending.as_deref(), Some("parquet" | "csv")) {
            section.fault("path", expected("a file that ends in .parquet or .csv", &path.display().to_string()));
        } else if !path.is_file() {
            section.fault("path", format!("the file {} does not exist", path.display()));
        }
    }
    let key = section.required_text("key", "the column to look up by");
    let value = section.text("value").filter(|column| !column.is_empty());
    let memory_bytes = section.get_or("memory", 64 << 20, size_up_to(TABLE_BYTES_MAX));
    section.finish();
    Some(BucketStore::Table(TableBucket { path: path?, key: key?, value, memory_bytes }))
}

/// One folder.
fn folder(section: Section<'_>, folder: &Path) -> Option<FolderGrant> {
    let path = section.required_text("path", "a folder to read").map(|text| resolve(&section, folder, &text));
    if let Some(path) = &path {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !path.is_dir() {
            section.fault("path", format!("the folder {} does not exist", path.display()));
        } else if FORBIDDEN_FOLDERS
            .iter()
            .any(|forbidden| real == Path::new(forbidden) || (*forbidden != "/" && real.starts_with(forbidden)))
        {
            section.fault(
                "path",
                format!("{} shows the machine, not data; name the folder that is meant", real.display()),
            );
        }
    }
    let name = section.required_text("as", "where the plugin sees it, such as /lookup");
    if let Some(name) = &name
        && (!name.starts_with('/') || name.split('/').any(|part| part == "..") || name.contains('\0'))
    {
        section.fault("as", expected("a path from the root such as /lookup", name));
    }
    section.finish();
    Some(FolderGrant { path: path?, name: name? })
}

/// A path relative to the file that says it.
fn resolve(section: &Section<'_>, folder: &Path, text: &str) -> PathBuf {
    let place = section.node("path").map_or_else(|| section.place(), |node| &node.place);
    Section::resolve(place, folder, text)
}

/// A time above zero that is not too long.
fn time_limit(text: &str) -> Result<Duration, String> {
    match positive_duration(text)? {
        limit if limit > TIMEOUT_MAX => Err(format!("{text} is too long; at most 5m")),
        limit => Ok(limit),
    }
}

/// A size that is not too large.
fn size_up_to(most: usize) -> impl FnOnce(&str) -> Result<usize, String> {
    move |text| match size(text)? {
        bytes if bytes > most => Err(format!("{text} is too much; at most {} MiB", most >> 20)),
        bytes => Ok(bytes),
    }
}
