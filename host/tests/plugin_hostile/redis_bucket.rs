//! Buckets in a real Redis: what is found there, and that tenants of one server do not see each other's keys.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use arrow_array::{Array as _, StringArray};
use fs_data_sink::config::{
    Access, BucketGrant, BucketStore, Grants, PluginConfig, RedisAddress, RedisBucket, RedisConnection, RedisServers,
    Secret,
};
use serde_json::json;

use crate::{
    heard::Heard,
    outside::{ask, outcomes},
    support::{built, hostile, rows, run},
};

/// Belongs to the user `default`.
const PASSWORD: &str = "geheim-4711";

/// A server of a test; ended with it.
struct Server {
    /// The process.
    process: Child,
    /// Its port.
    port: u16,
    /// Its folder.
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// An empty server with a password.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--requirepass",
                PASSWORD,
                "--dir",
            ])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing");
        let server = Self { process, port, _folder: folder };
        let began = Instant::now();
        while server.client().get_connection().is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// A client of it.
    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}/", self.port)).unwrap()
    }

    /// Sets keys.
    fn set(&self, values: &[(&str, &str)]) {
        let mut connection = self.client().get_connection().unwrap();
        for (key, value) in values {
            let () = redis::cmd("SET").arg(key).arg(value).query(&mut connection).unwrap();
        }
    }

    /// One key.
    fn get(&self, key: &str) -> Option<String> {
        redis::cmd("GET").arg(key).query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    /// A bucket under a prefix.
    fn bucket(&self, prefix: &str, access: Access) -> BucketGrant {
        let connection = RedisConnection {
            servers: RedisServers::Single(RedisAddress { host: "127.0.0.1".to_owned(), port: self.port }),
            username: None,
            password: Some(Secret::new(PASSWORD)),
            db: 0,
            tls: None,
        };
        BucketGrant {
            bucket: "b".to_owned(),
            access,
            store: BucketStore::Redis(Box::new(RedisBucket { connection, prefix: prefix.to_owned() })),
            value_bytes: 100,
            timeout: Duration::from_secs(5),
            keys_per_call: 5_000,
        }
    }
}

#[tokio::test]
async fn a_bucket_has_the_keys_under_its_prefix_and_no_others() {
    let server = Server::start();
    server.set(&[
        ("shop:b:a", "1"),
        ("shop:b:empty", ""),
        ("shop:b:long", &"x".repeat(101)),
        ("bank:b:a", "geheim"),
        ("a", "geheim"),
    ]);
    let mut connection = server.client().get_connection().unwrap();
    let () = redis::cmd("RPUSH").arg("shop:b:list").arg("x").query(&mut connection).unwrap();
    let (heard, _guard) = Heard::listen();
    let told = outcomes(
        &json!([
            ask("b", "get", json!({"key": "a"})),
            ask("b", "get_many", json!({"keys": ["a", "no", "empty"]})),
            ask("b", "get", json!({"key": "../bank:b:a"})),
            ask("b", "get", json!({"key": "*"})),
            ask("b", "exists", json!({"key": "empty"})),
            ask("b", "list", json!({})),
            ask("b", "get", json!({"key": "list"})),
            ask("b", "set", json!({"key": "a", "value": "2"})),
            ask("b", "delete", json!({"key": "a"})),
            ask("b", "get", json!({"key_bytes": 1 << 20})),
            ask("b", "get", json!({"key": "long"})),
        ]),
        |grants: &mut Grants| grants.keyvalue = vec![server.bucket("shop:b:", Access::Read)],
    )
    .await;
    assert_eq!(
        told,
        [
            "1",
            "a=1 none empty=",
            "none",
            "none",
            "true",
            "keys: a empty list long",
            "the store behind the bucket does not answer as it should",
            "access-denied",
            "access-denied",
            "a key of 1048576 bytes; at most 1024",
            "the value of \"long\" has more than 100 bytes (value_bytes)",
        ]
    );
    heard.expect("keyvalue", "access");
    assert_eq!(server.get("shop:b:a").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_bucket_that_may_be_written_is_and_only_under_its_prefix() {
    let server = Server::start();
    server.set(&[("bank:b:a", "geheim")]);
    let written = |access| {
        let grant = server.bucket("shop[*]:", access);
        let steps = json!([
            ask("b", "set", json!({"key": "a", "value": "1"})),
            ask("b", "set", json!({"key": "b", "value": "2"})),
            ask("b", "delete", json!({"key": "b"})),
            ask("b", "set", json!({"key": "c", "value_bytes": 101})),
            ask("b", "list", json!({})),
        ]);
        async move { outcomes(&steps, |grants: &mut Grants| grants.keyvalue = vec![grant]).await }
    };
    let told = written(Access::ReadWrite).await;
    assert_eq!(told, ["set", "set", "deleted", "a value of 101 bytes; at most 100 (value_bytes)", "keys: a"]);
    let told = written(Access::Write).await;
    assert_eq!(told[4], "access-denied");
    assert_eq!((server.get("shop[*]:a").as_deref(), server.get("shop[*]:b")), (Some("1"), None));
    assert_eq!(server.get("bank:b:a").as_deref(), Some("geheim"));
}

#[tokio::test]
async fn many_keys_are_looked_up_at_once_and_a_server_that_went_away_is_an_error() {
    let server = Server::start();
    let mut pipe = redis::pipe();
    for at in 0..3_000 {
        pipe.set(format!("shop:k{at}"), "v").ignore();
    }
    let () = pipe.query(&mut server.client().get_connection().unwrap()).unwrap();
    let grant = server.bucket("shop:", Access::Read);
    let steps = json!([ask("b", "get_many", json!({"key": "k", "keys": 3_000})), ask("b", "list", json!({}))]);
    let told = outcomes(&steps, |grants: &mut Grants| grants.keyvalue = vec![grant.clone()]).await;
    assert!(told[0].starts_with("k0=v k1=v k2=v"), "{}", &told[0][..100]);
    drop(server);
    let told = outcomes(&steps, |grants: &mut Grants| grants.keyvalue = vec![grant]).await;
    assert_eq!(told, ["the store behind the bucket does not answer as it should"; 2]);
}

#[tokio::test]
async fn rows_are_enriched_from_redis() {
    let server = Server::start();
    server.set(&[("shop:one", r#"{"name":"Ann"}"#), ("shop:nine", r#"{"name":"Zoe"}"#)]);
    let config = json!({"column": "s", "bucket": "b", "fields": [{"name": "name", "as": "customer"}]});
    let grants = Grants { keyvalue: vec![server.bucket("shop:", Access::Read)], ..Grants::default() };
    let plugin = PluginConfig { path: built("enrich_lookup.wasm"), grants, ..hostile(&config) };
    let output = run(plugin).await.unwrap();
    let names = rows(&output).column_by_name("customer").unwrap();
    let names: Vec<_> = names.as_any().downcast_ref::<StringArray>().unwrap().iter().collect();
    assert_eq!((names[0], names[1], names[9]), (None, Some("Ann"), Some("Zoe")));
}
