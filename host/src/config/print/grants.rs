//! What a plugin was granted, as YAML. Values of `config` and `env` are masked, whatever they are called.

use serde_json::{Map, Value, json};

use super::{MASK, duration, set, source::redis_connection};
use crate::config::{BucketGrant, BucketStore, Grants, HttpGrant, PrivateAddresses, Secret, TableBucket};

/// All grants.
pub(super) fn grants(config: &Grants) -> Value {
    let Grants { http: servers, keyvalue, config, environment, files } = config;
    let folders: Vec<_> =
        files.iter().map(|folder| json!({"path": folder.path.display().to_string(), "as": folder.name})).collect();
    json!({
        "http": servers.iter().map(http).collect::<Vec<_>>(),
        "keyvalue": keyvalue.iter().map(bucket).collect::<Vec<_>>(),
        "config": masked(config),
        "env": masked(environment),
        "files": folders,
    })
}

/// One server.
fn http(config: &HttpGrant) -> Value {
    let allow_private = private(&config.private);
    json!({
        "host": config.host,
        "port": config.port,
        "scheme": config.scheme.as_str(),
        "methods": config.methods,
        "allow_private": allow_private,
        "ca_file": config.ca_file.as_ref().map(|path| path.display().to_string()),
        "connect_timeout": duration(config.connect_timeout),
        "timeout": duration(config.timeout),
        "request_bytes": config.request_bytes,
        "response_bytes": config.response_bytes,
        "requests_per_call": config.requests_per_call,
        "concurrent": config.concurrent,
    })
}

/// Which private addresses may be connected to.
pub(super) fn private(config: &PrivateAddresses) -> Value {
    match config {
        PrivateAddresses::Refused => json!(false),
        PrivateAddresses::Allowed => json!(true),
        PrivateAddresses::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
    }
}

/// One bucket.
fn bucket(config: &BucketGrant) -> Value {
    let BucketGrant { bucket, access, store, value_bytes, timeout, keys_per_call } = config;
    let mut value = json!({"bucket": bucket, "access": access.as_str()});
    match store {
        BucketStore::Redis(redis) => {
            let mut server = json!({"prefix": redis.prefix});
            redis_connection(&mut server, &redis.connection);
            set(&mut value, "redis", server);
        }
        BucketStore::Table(TableBucket { path, key, value: column, memory_bytes }) => {
            let path = path.display().to_string();
            set(&mut value, "table", json!({"path": path, "key": key, "value": column, "memory": memory_bytes}));
        }
    }
    set(&mut value, "value_bytes", json!(value_bytes));
    set(&mut value, "timeout", duration(*timeout));
    set(&mut value, "keys_per_call", json!(keys_per_call));
    value
}

/// Names with their values hidden.
fn masked(pairs: &[(String, Secret)]) -> Value {
    Value::Object(pairs.iter().map(|(name, _)| (name.clone(), json!(MASK))).collect::<Map<_, _>>())
}
