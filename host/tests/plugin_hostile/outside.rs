//! What plugins reach by grant, through a real component: servers, tables, values, an environment, clock and random numbers.
//!
//! `hostile_lookup.wasm` tries what its config says and tells what it came to. The finer rules of `wasi:http` are tested beside
//! its code, where the resolver can be chosen.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use arrow_array::{Array as _, StringArray};
use fs_data_sink::config::{
    Access, BucketGrant, BucketStore, Grants, HttpGrant, HttpScheme, PluginConfig, PrivateAddresses, Secret,
    TableBucket,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    heard::Heard,
    support::{ENGINE, built, hostile, open, rows, run, whole_batch},
};

/// A table of two customers, in a folder that must outlive its use.
pub(crate) fn table() -> (TempDir, BucketGrant) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("customers.csv");
    std::fs::write(&path, "id,name,age\none,Ann,41\ntwo,Bob,\n").unwrap();
    let store = BucketStore::Table(TableBucket { path, key: "id".to_owned(), value: None, memory_bytes: 1 << 20 });
    let grant = BucketGrant {
        bucket: "customers".to_owned(),
        access: Access::Read,
        store,
        value_bytes: 1 << 10,
        timeout: Duration::from_secs(5),
        keys_per_call: 10_000,
    };
    (folder, grant)
}

/// A grant of a server at a port of this machine.
pub(crate) fn server(host: &str, port: u16) -> HttpGrant {
    HttpGrant {
        host: host.to_owned(),
        port,
        scheme: HttpScheme::Http,
        methods: vec!["GET".to_owned()],
        private: PrivateAddresses::Allowed,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        request_bytes: 1_000,
        response_bytes: 1_000,
        requests_per_call: 10,
        concurrent: 2,
    }
}

/// `hostile_lookup.wasm` with steps. Since it imports everything, a server and a table are granted always.
pub(crate) fn prying(steps: &Value, change: impl FnOnce(&mut Grants)) -> (PluginConfig, TempDir) {
    let (folder, bucket) = table();
    let mut grants = Grants { http: vec![server("nobody.test", 1)], keyvalue: vec![bucket], ..Grants::default() };
    change(&mut grants);
    let mut plugin = PluginConfig { path: built("hostile_lookup.wasm"), grants, ..hostile(&json!({"do": steps})) };
    plugin.limits.call_timeout = Duration::from_secs(20);
    (plugin, folder)
}

/// What steps came to, one after the other.
pub(crate) async fn outcomes(steps: &Value, change: impl FnOnce(&mut Grants)) -> Vec<String> {
    let (plugin, _folder) = prying(steps, change);
    let output = run(plugin).await.unwrap();
    let rejection = whole_batch(&output);
    assert_eq!(rejection.code, "plugin-failed", "{}", rejection.message);
    rejection.message.split('\n').map(str::to_owned).collect()
}

/// A server that answers each connection with a text; gives its port.
fn serve(text: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let answer = |stream: &mut TcpStream| {
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(bytes @ 1..) => request.extend_from_slice(&piece[..bytes]),
                    _ => return,
                }
            }
            let _ = stream.write_all(text.as_bytes());
        };
        listener.incoming().flatten().for_each(|mut stream| answer(&mut stream));
    });
    port
}

/// A response with a body.
fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// A step with more keys.
fn with(mut step: Value, more: Value) -> Value {
    if let (Value::Object(step), Value::Object(more)) = (&mut step, more) {
        step.extend(more);
    }
    step
}

/// A request in a step.
fn get(authority: &str, more: Value) -> Value {
    json!({"http": with(json!({"authority": authority, "path": "/"}), more)})
}

#[tokio::test]
async fn a_granted_server_answers_and_all_else_is_refused_and_logged() {
    let (heard, _guard) = Heard::listen();
    let inside = serve(ok("secret"));
    let port = serve(ok("hello"));
    let redirecting = serve(format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{inside}/secret\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ));
    let authority = |port: u16| format!("localhost:{port}");
    let steps = json!([
        get(&authority(port), json!({})),
        get(&authority(redirecting), json!({})),
        get(&authority(redirecting), json!({"follow": true})),
        get(&authority(port), json!({"method": "POST"})),
        get(&authority(inside), json!({})),
        get(&format!("127.0.0.1:{port}"), json!({})),
        get(&authority(port), json!({"scheme": "https"})),
        get(&format!("public.localhost:{port}"), json!({})),
        get("169.254.169.254:80", json!({"path": "/latest/meta-data/"})),
    ]);
    let public = HttpGrant { private: PrivateAddresses::Refused, ..server("localhost", port) };
    let granted = vec![server("localhost", port), server("localhost", redirecting)];
    let told = outcomes(&steps, |grants| grants.http = granted).await;
    let denied = "HttpRequestDenied";
    assert_eq!(told, ["200 5 bytes hello", "302 0 bytes ", denied, denied, denied, denied, denied, denied, denied]);
    heard.expect("http", "host");
    // The name leads to this machine, which is not of the public internet.
    let told = outcomes(&json!([get(&authority(port), json!({}))]), |grants| grants.http = vec![public]).await;
    assert_eq!(told, ["DestinationIpProhibited"]);
    heard.expect("http", "address");
}

#[tokio::test]
async fn limits_of_requests_hold_in_a_component() {
    let (heard, _guard) = Heard::listen();
    let port = serve(ok(&"x".repeat(2_000)));
    let quick = serve(ok("hi"));
    let authority = format!("localhost:{port}");
    let quick_one = format!("localhost:{quick}");
    let told = outcomes(
        &json!([
            get(&authority, json!({})),
            get(&quick_one, json!({"at_once": 3})),
            get(&quick_one, json!({"times": 20})),
        ]),
        |grants| grants.http = vec![server("localhost", port), server("localhost", quick)],
    )
    .await;
    assert_eq!(
        told,
        [
            "HttpResponseBodySize(Some(1000))",
            "200 2 bytes hi, ConnectionLimitReached",
            "200 2 bytes hi, ConnectionLimitReached"
        ]
    );
    heard.expect("http", "response-bytes");
    let posting = HttpGrant { methods: vec!["POST".to_owned()], ..server("localhost", quick) };
    let told = outcomes(&json!([get(&quick_one, json!({"method": "POST", "body_bytes": 5000}))]), |grants| {
        grants.http = vec![posting];
    })
    .await;
    assert_eq!(told, ["HttpRequestBodySize(Some(1000))"]);
    heard.expect("http", "request-bytes");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_request_and_not_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, _guard) = Heard::listen();
    let (mut plugin, _folder) = prying(&json!([get(&format!("localhost:{port}"), json!({}))]), |grants| {
        grants.http = vec![server("localhost", port)];
    });
    // Shorter than the grant's: the plugin still hears of it before its call is over.
    plugin.limits.call_timeout = Duration::from_secs(1);
    let output = run(plugin).await.unwrap();
    assert_eq!(whole_batch(&output).message, "HttpResponseTimeout");
    heard.expect("http", "timeout");
}

#[tokio::test]
async fn a_request_with_a_bomb_of_fields_traps_at_a_limit() {
    let (plugin, _folder) = prying(&json!([get("nobody.test:1", json!({"header_bytes": 200_000}))]), |_| {});
    let output = run(plugin).await.unwrap();
    let rejection = whole_batch(&output);
    assert_eq!(rejection.code, "plugin-trap");
    assert!(rejection.message.contains("size"), "{}", rejection.message);
}

/// A step with a bucket.
pub(crate) fn ask(bucket: &str, op: &str, more: Value) -> Value {
    json!({"keyvalue": with(json!({"bucket": bucket, "op": op}), more)})
}

#[tokio::test]
async fn a_table_is_looked_up_and_what_is_too_much_is_refused_in_words() {
    let (heard, _guard) = Heard::listen();
    let told = outcomes(
        &json!([
            ask("customers", "get", json!({"key": "one"})),
            ask("customers", "get_many", json!({"keys": ["two", "three"]})),
            ask("customers", "exists", json!({"key": "three"})),
            ask("customers", "list", json!({})),
            ask("customers", "get", json!({"key_bytes": 1 << 20})),
            ask("customers", "set", json!({"key": "one", "value_bytes": 1})),
            ask("customers", "delete", json!({"key": "one"})),
            ask("customers", "get_many", json!({"keys": 20_000})),
            ask("orders", "get", json!({"key": "one"})),
        ]),
        |_| {},
    )
    .await;
    assert_eq!(
        told,
        [
            r#"{"id":"one","name":"Ann","age":"41"}"#,
            r#"two={"id":"two","name":"Bob","age":null} none"#,
            "false",
            "keys: one two",
            "a key of 1048576 bytes; at most 1024",
            "access-denied",
            "access-denied",
            "more than 10000 keys in one call (keys_per_call)",
            "access-denied"
        ]
    );
    heard.expect("keyvalue", "key-bytes");
    let told = outcomes(&json!([ask("orders", "get", json!({"key": "one"}))]), |_| {}).await;
    assert_eq!(told, ["access-denied"]);
    heard.expect("keyvalue", "bucket");
}

#[tokio::test]
async fn values_and_variables_are_those_that_were_granted() {
    let steps = json!([{"look": "config"}, {"look": "environment"}, {"look": "folders"}]);
    assert_eq!(outcomes(&steps, |_| {}).await, ["", "", ""]);
    let pair = |name: &str| (name.to_owned(), Secret::new(format!("{name}-value")));
    let told = outcomes(&steps, |grants| {
        grants.config = vec![pair("a"), pair("b")];
        grants.environment = vec![pair("TZ")];
    })
    .await;
    assert_eq!(told, ["a=a-value b=b-value", "TZ=TZ-value", ""]);
}

#[tokio::test]
async fn a_plugin_that_says_that_it_is_deterministic_gets_a_world_that_is() {
    let steps = json!([{"look": "clock"}, {"look": "random"}]);
    let told = |grants: Grants| async move {
        let (mut plugin, _folder) = prying(&json!([{"look": "clock"}, {"look": "random"}]), |own| {
            own.environment = grants.environment;
        });
        plugin.on_trap.retries = 0;
        let output = run(plugin).await.unwrap();
        whole_batch(&output).message.clone()
    };
    let fixed = || Grants { environment: vec![("DETERMINISTIC".to_owned(), Secret::new("1"))], ..Grants::default() };
    let (first, second) = (told(fixed()).await, told(fixed()).await);
    assert_eq!(first, second);
    assert!(first.starts_with("0 0 0\n"), "{first}");
    let (first, second) = (outcomes(&steps, |_| {}).await, outcomes(&steps, |_| {}).await);
    assert!(!first[0].starts_with("0 ") && first != second, "{first:?}");
}

#[tokio::test]
async fn imports_without_their_grants_are_refused_with_the_lines_to_add() {
    let (plugin, _folder) = prying(&json!([]), |grants| *grants = Grants::default());
    let message = ENGINE.load(&Arc::new(plugin.clone())).unwrap_err().to_string();
    assert!(
        message.contains("imports wasi:keyvalue/store@0.2.0-draft, wasi:keyvalue/batch@0.2.0-draft, which is not"),
        "{message}"
    );
    assert!(
        message.contains("grants:\n  http:\n    - {host: api.example.com, port: 443, methods: [GET]}"),
        "{message}"
    );
    let found = ENGINE.inspect(plugin).await.unwrap();
    assert_eq!(found.description.unwrap().name, "hostile-lookup");
    let need = |name: &str| found.imports.iter().find(|import| import.name.starts_with(name)).unwrap().need.to_string();
    assert_eq!(need("wasi:http/outgoing-handler"), "grants.http");
    assert_eq!(need("wasi:keyvalue/batch"), "grants.keyvalue");
    assert_eq!(need("wasi:filesystem/types"), "nothing");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_told_at_load() {
    let (plugin, folder) = prying(&json!([]), |_| {});
    std::fs::write(folder.path().join("customers.csv"), "id\none\none\n").unwrap();
    let message = open(&[plugin]).await.unwrap_err().to_string();
    assert!(message.contains("is granted the bucket \"customers\", but"), "{message}");
    assert!(message.contains("customers.csv: row 2: the key \"one\" is there twice in column id"), "{message}");
}

#[tokio::test]
async fn rows_are_enriched_from_a_table() {
    let (_folder, bucket) = table();
    let config =
        json!({"column": "s", "bucket": "customers", "fields": [{"name": "name"}, {"name": "age", "type": "integer"}]});
    let grants = Grants { keyvalue: vec![bucket], ..Grants::default() };
    let plugin = PluginConfig { path: built("enrich_lookup.wasm"), grants, ..hostile(&config) };
    let output = run(plugin).await.unwrap();
    let names = rows(&output).column_by_name("name").unwrap();
    let names: Vec<_> = names.as_any().downcast_ref::<StringArray>().unwrap().iter().collect();
    assert_eq!(names[..4], [None, Some("Ann"), Some("Bob"), None]);
    assert_eq!(names.len(), 10);
}
