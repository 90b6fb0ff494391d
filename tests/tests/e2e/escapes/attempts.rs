//! What is tried on each kind of grant, and what must come of it.

use serde_json::{Value, json};

/// A pipeline of the tenant who tries.
pub(super) struct Attempt {
    /// Its name.
    pub(super) name: &'static str,
    /// What the plugin does.
    pub(super) steps: Vec<Value>,
    /// What it must hear, one text a step.
    pub(super) told: Vec<&'static str>,
    /// Grant, reason and words of each refusal that must be logged and counted.
    pub(super) refusals: Vec<Refusal>,
}

/// Grant, reason and words of a refusal.
pub(super) type Refusal = (&'static str, &'static str, String);

/// A request in a step.
fn get(authority: &str, path: &str, more: &Value) -> Value {
    let mut step = json!({"authority": authority, "path": path});
    if let (Value::Object(step), Value::Object(more)) = (&mut step, more.clone()) {
        step.extend(more);
    }
    json!({"http": step})
}

/// A host with the port of all servers.
fn at(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// A refusal of a request.
fn http(reason: &'static str, words: &str) -> Refusal {
    ("http", reason, words.to_owned())
}

/// Ways over HTTP to a server that was not granted. `port` is that of all servers.
pub(super) fn to_other_servers(port: u16) -> Vec<Attempt> {
    let (plain, follow) = (json!({}), json!({"follow": true}));
    let at = |host: &str| at(host, port);
    let hosts = |hosts: &[&str]| hosts.iter().map(|host| get(&at(host), "/", &plain)).collect::<Vec<_>>();
    let (denied, prohibited) = ("HttpRequestDenied", "DestinationIpProhibited");
    vec![
        Attempt {
            name: "redirects",
            steps: vec![
                get(&at("api.example"), &format!("/to?http://127.0.0.1:{port}/"), &plain),
                get(&at("api.example"), &format!("/to?http://127.0.0.1:{port}/"), &follow),
                get(&at("api.example"), &format!("/to?http://inside.example:{port}/"), &follow),
            ],
            told: vec!["302 0 bytes ", denied, prohibited],
            refusals: vec![
                http("host", &format!("GET http://127.0.0.1:{port}: this host is not granted")),
                http(
                    "address",
                    "inside.example: the name leads to 127.0.0.1, which is no address of the public internet",
                ),
            ],
        },
        Attempt {
            name: "literals",
            steps: hosts(&[
                "169.254.169.254",
                "127.0.0.1",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "0x7f000001",
                "2130706433",
                "127.1",
                "localhost",
            ]),
            told: vec![denied; 8],
            refusals: vec![http("host", &format!("GET http://169.254.169.254:{port}: this host is not granted"))],
        },
        Attempt {
            name: "names",
            steps: hosts(&["link.example", "inside.example", "ten.example", "six.example", "mapped.example"]),
            told: vec![prohibited; 5],
            refusals: vec![http("address", "link.example: the name leads to 169.254.169.254, which is no address of")],
        },
        Attempt {
            name: "mixed",
            steps: vec![get(&at("mixed.example"), "/ok", &json!({"times": 10}))],
            told: vec!["200 6 bytes public"],
            refusals: vec![],
        },
        Attempt {
            name: "turning",
            steps: vec![get(&at("turning.example"), "/ok", &json!({"times": 4}))],
            told: vec!["200 6 bytes public, DestinationIpProhibited, 200 6 bytes public, DestinationIpProhibited"],
            refusals: vec![http("address", "turning.example: the name leads to 127.0.0.1")],
        },
        Attempt {
            name: "ports",
            steps: vec![
                get("api.example:22", "/", &plain),
                get(&at("api.example"), "/", &json!({"method": "POST"})),
                get(&at("api.example"), "/", &json!({"scheme": "https"})),
            ],
            told: vec![denied; 3],
            refusals: vec![
                http("port", "GET http://api.example:22: this port or scheme of the host is not granted"),
                http("method", &format!("POST http://api.example:{port}: this method is not granted")),
            ],
        },
    ]
}

/// Answers over HTTP that would swamp the host, or keep it waiting.
pub(super) fn by_bad_answers(port: u16) -> Vec<Attempt> {
    let plain = json!({});
    let at = |host: &str| at(host, port);
    let public = |paths: &[&str]| paths.iter().map(|path| get(&at("api.example"), path, &plain)).collect();
    let head = "HttpResponseHeaderSectionSize(Some(65536))";
    vec![
        Attempt {
            name: "silent",
            steps: vec![get(&at("silent.example"), "/ok", &plain)],
            told: vec!["HttpResponseTimeout"],
            refusals: vec![http("timeout", "silent.example did not answer in whole within 1s (timeout)")],
        },
        Attempt {
            name: "mute",
            steps: vec![get(&at("mute.example"), "/ok", &plain)],
            told: vec!["ConnectionTimeout"],
            refusals: vec![http("timeout", "mute.example: no connection within 300ms (connect_timeout)")],
        },
        Attempt {
            name: "oversized",
            steps: public(&["/announced", "/endless"]),
            told: vec!["HttpResponseBodySize(Some(10240))", "HTTP response body size exceeds limit: 10240 bytes"],
            refusals: vec![http("response-bytes", "api.example answered more than 10240 bytes (response_bytes)")],
        },
        Attempt {
            name: "slow",
            steps: public(&["/never", "/drip", "/slow-head"]),
            told: vec!["HttpResponseTimeout", "HTTP response timeout", "HttpResponseTimeout"],
            refusals: vec![http("timeout", "api.example did not answer in whole within 1s (timeout)")],
        },
        Attempt {
            name: "heads",
            steps: public(&["/many-fields", "/long-field", "/endless-head", "/trailers"]),
            told: vec![head, head, head, "HTTP response header section size exceeds limit: 65536 bytes"],
            refusals: vec![http(
                "response-headers",
                "api.example answered more than 100 fields or 65536 bytes of them",
            )],
        },
    ]
}

/// What is tried in buckets of a Redis.
pub(super) fn in_buckets() -> Vec<Attempt> {
    let ask = |bucket: &str, op: &str, more: Value| {
        let mut step = json!({"bucket": bucket, "op": op});
        if let (Value::Object(step), Value::Object(more)) = (&mut step, more) {
            step.extend(more);
        }
        json!({"keyvalue": step})
    };
    let keyvalue = |reason, words: &str| ("keyvalue", reason, words.to_owned());
    let long = json!({"key_bytes": 1 << 20});
    vec![
        Attempt {
            name: "long-keys",
            steps: vec![ask("own", "get", long.clone()), ask("own", "exists", long.clone()), ask("own", "set", long)],
            told: vec!["a key of 1048576 bytes; at most 1024", "a key of 1048576 bytes; at most 1024", "access-denied"],
            refusals: vec![
                keyvalue("key-bytes", "bucket own: a key of 1048576 bytes; at most 1024"),
                keyvalue("access", "bucket own: write is not granted, but read"),
            ],
        },
        Attempt {
            name: "other-keys",
            steps: vec![
                ask("own", "get", json!({"key": "../../neighbour:customers:secret"})),
                ask("own", "get", json!({"key": "*"})),
                ask("own", "list", json!({})),
            ],
            told: vec!["none", "none", "keys: long mine"],
            refusals: vec![],
        },
        Attempt {
            name: "other-buckets",
            steps: vec![ask("customers", "get", json!({"key": "secret"})), ask("", "list", json!({}))],
            told: vec!["access-denied"; 2],
            refusals: vec![keyvalue("bucket", "the bucket \"customers\" is not granted")],
        },
        Attempt {
            name: "too-many",
            steps: vec![ask("own", "get_many", json!({"keys": 10_001})), ask("own", "get", json!({"key": "long"}))],
            told: vec![
                "more than 10000 keys in one call (keys_per_call)",
                "the value of \"long\" has more than 1024 bytes (value_bytes)",
            ],
            refusals: vec![
                keyvalue("keys", "bucket own: more than 10000 keys in one call (keys_per_call)"),
                keyvalue("answer", "bucket own: the value of \"long\" has more than 1024 bytes (value_bytes)"),
            ],
        },
    ]
}

/// What is tried in granted folders.
pub(super) fn in_folders() -> Vec<Attempt> {
    let file = |op: &str, path: &str| json!({"file": {"op": op, "path": path, "target": "new"}});
    let read = |paths: &[&str]| paths.iter().map(|path| file("read", path)).collect::<Vec<_>>();
    let refused = |path: &str| {
        let words = format!("open-at {path:?}: it leads out of the granted folder, or would change it");
        vec![("files", "not-permitted", words)]
    };
    let outside = "not-permitted";
    vec![
        Attempt {
            name: "parents",
            steps: read(&[
                "../secret/key.txt",
                "sub/../../secret/key.txt",
                "/etc/passwd",
                "sub/./.././../secret/key.txt",
            ]),
            told: vec![outside; 4],
            refusals: refused("../secret/key.txt"),
        },
        Attempt {
            name: "links",
            steps: read(&[
                "relative",
                "absolute",
                "to-parent/secret/key.txt",
                "winding/key.txt",
                "proc/etc/passwd",
                "nowhere-outside",
            ]),
            told: vec![outside; 6],
            refusals: refused("relative"),
        },
        Attempt {
            name: "links-inside",
            steps: read(&["inside", "nowhere", "circle"]),
            told: vec!["harmless", "no-entry", "loop"],
            refusals: vec![],
        },
        Attempt {
            name: "changes",
            steps: vec![
                file("create", "new"),
                file("truncate", "plain.txt"),
                file("unlink", "plain.txt"),
                file("symlink", "new"),
            ],
            told: vec![outside; 4],
            refusals: refused("new"),
        },
        Attempt {
            name: "pipes",
            steps: read(&["pipe"]),
            told: vec![outside],
            refusals: vec![("files", "special-file", "open-at \"pipe\": it is no file and no folder".to_owned())],
        },
        Attempt {
            name: "swapped",
            steps: vec![json!({"file": {"op": "read", "path": "swapped.txt", "times": 10_000}})],
            told: vec!["harmless, not-permitted"],
            refusals: refused("swapped.txt"),
        },
    ]
}
