//! `plugins[].grants`.

use super::*;
use crate::config::{Access, BucketStore, Grants, HttpScheme, PrivateAddresses, RedisServers};

/// A folder with a pipeline whose only plugin has these grants, a table, and a folder `lookup`.
fn folder(grants: &str) -> tempfile::TempDir {
    let folder = folder_with(&format!("tenant: shop\n{RIGHT}plugins:\n  - path: p.wasm\n    grants:\n{grants}"));
    std::fs::create_dir(folder.path().join("lookup")).unwrap();
    std::fs::write(folder.path().join("t.csv"), "id\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "").unwrap();
    folder
}

/// The grants, and the folder that they are in.
fn grants(text: &str, variables: &[(&str, &str)]) -> (Grants, tempfile::TempDir) {
    let folder = folder(text);
    let config = load_paths(folder.path(), &["orders.yaml"], variables, &[]).unwrap();
    (config.pipelines[0].plugins[0].grants.clone(), folder)
}

/// The faults of grants, without what they all begin with.
fn grant_faults(text: &str) -> String {
    let message = load_paths(folder(text).path(), &["orders.yaml"], &[], &[]).unwrap_err();
    message.replace("orders.yaml:", "").replace("plugins[0].grants.", "")
}

#[test]
fn nothing_is_granted_by_default() {
    let config =
        load_text(&format!("{RIGHT}plugins: [{{path: p.wasm, grants: {{http: [], env: {{}}}}}}]"), &[], &[]).unwrap();
    assert_eq!(config.pipelines[0].plugins[0].grants.lines(), Vec::<String>::new());
    assert!(!config.to_yaml().contains("grants"));
}

#[test]
fn grants_are_read_and_shown_without_their_secrets() {
    let (grants, folder) = grants(
        "      http:
        - {host: API.example.com}
        - {host: '[::1]', scheme: http, methods: [get, POST], allow_private: true, timeout: 3s}
        - {host: db.internal, port: 8443, allow_private: [10.1.2.3/8, 192.168.0.7], ca_file: ca.pem, concurrent: 2}
      keyvalue:
        - {bucket: customers, redis: {url: 'redis://u:geheim@cache:7000/2'}}
        - {bucket: stock, access: read_write, redis: {host: cache, prefix: 'stock:'}, value_bytes: 1KiB}
        - {bucket: countries, table: {path: t.csv, key: id, value: name, memory: 1MiB}}
      config: {region: eu, api_key: '${KEY}'}
      env: {TZ: UTC}
      files: [{path: lookup, as: /lookup}]
",
        &[("KEY", "geheim-1")],
    );
    assert_eq!((grants.http[0].host.as_str(), grants.http[0].port), ("api.example.com", 443));
    assert_eq!(
        (grants.http[0].methods.as_slice(), &grants.http[0].private),
        (&["GET".to_owned()][..], &PrivateAddresses::Refused)
    );
    assert_eq!(
        (grants.http[1].host.as_str(), grants.http[1].port, grants.http[1].scheme),
        ("::1", 80, HttpScheme::Http)
    );
    assert_eq!(grants.http[1].connect_timeout, std::time::Duration::from_secs(3));
    let networks = ["10.0.0.0/8", "192.168.0.7/32"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(grants.http[2].private, PrivateAddresses::Networks(networks));
    let BucketStore::Redis(redis) = &grants.keyvalue[0].store else { panic!("redis") };
    assert_eq!((redis.prefix.as_str(), redis.connection.db), ("shop:customers:", 2));
    assert!(matches!(&redis.connection.servers, RedisServers::Single(address) if address.to_string() == "cache:7000"));
    assert_eq!((grants.keyvalue[1].access, grants.keyvalue[1].value_bytes), (Access::ReadWrite, 1024));
    assert_eq!(grants.config[1].1.reveal(), "geheim-1");
    let shown = folder.path().display();
    assert_eq!(
        grants.lines(),
        [
            "http: GET https://api.example.com:443".to_owned(),
            "http: GET, POST http://[::1]:80, at private addresses too".to_owned(),
            "http: GET https://db.internal:8443, in 10.0.0.0/8, 192.168.0.7/32 too".to_owned(),
            "keyvalue: customers (read) of Redis cache:7000, keys shop:customers:*".to_owned(),
            "keyvalue: stock (read_write) of Redis cache:6379, keys stock:*".to_owned(),
            format!("keyvalue: countries (read) of {shown}/t.csv by id"),
            "config: region, api_key".to_owned(),
            "env: TZ".to_owned(),
            format!("files: {shown}/lookup as /lookup"),
        ]
    );
}

#[test]
fn what_is_printed_can_be_loaded_again_and_keeps_secrets() {
    let folder = folder(
        "      http: [{host: a.b, allow_private: [10.0.0.0/8]}, {host: c.d, methods: [PUT]}]
      keyvalue: [{bucket: a, redis: {url: 'redis://u:geheim-1@cache', tls: true}}, {bucket: b, table: {path: t.csv, key: id}}]
      config: {region: geheim-2}
      env: {TZ: geheim-3}
      files: [{path: lookup, as: /lookup}]
",
    );
    let config = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let printed = config.to_yaml();
    assert!(!printed.contains("geheim"), "{printed}");
    std::fs::write(folder.path().join("again.yaml"), &printed).unwrap();
    let again = load_paths(folder.path(), &["again.yaml"], &[], &[]).unwrap();
    assert_eq!(again.to_yaml(), printed);
    assert_eq!(again.pipelines[0].plugins[0].grants.lines(), config.pipelines[0].plugins[0].grants.lines());
}

#[test]
fn faults_of_grants_are_told_at_their_lines() {
    let faults = grant_faults(
        "      http:
        - {host: https://api.example.com/}
        - {host: '*.example.com', methods: [GET, CONNECT]}
        - {host: 10.0.0.5}
        - {host: 127.1, port: 0}
        - {host: a.b, scheme: http, ca_file: ca.pem, allow_private: [10.0.0.0/33], methods: [], timeout: 6m}
        - {prot: 80}
      keyvalue:
        - {bucket: a}
        - {bucket: a, redis: {url: 'http://x'}, table: {path: t.csv, key: id}}
        - {bucket: b, access: write, table: {path: missing.csv, key: id}}
        - {bucket: c, table: {path: lookup}, value_bytes: 2MiB}
        - {bucket: d, redis: {}}
        - {bucket: d, redis: {host: cache}}
      config: [a]
      env: {'A=B': c}
      files:
        - {path: missing, as: lookup}
        - {path: /proc/self, as: /a/../b}
        - {path: /, as: /x}
",
    );
    let expected = "\
8: http[0].host: expected a host's name such as api.example.com, or an IP address, without a scheme or port, found \"https://api.example.com/\"
9: http[1].host: \"*.example.com\": patterns are not served; name each host
9: http[1].methods: expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, found \"CONNECT\"
10: http[2].host: 10.0.0.5 is no address of the public internet; add `allow_private: true` if it is meant
11: http[3].host: expected a host's name such as api.example.com, or an IP address, without a scheme or port, found \"127.1\"
11: http[3].port: expected a port from 1 to 65535, found \"0\"
12: http[4].allow_private: expected true, false, or networks such as [10.0.0.0/8], found \"10.0.0.0/33\"
12: http[4].ca_file: has no meaning with `scheme: http`
12: http[4].methods: expected at least one; leave it out for GET
12: http[4].timeout: 6m is too long; at most 5m
13: http[5].host: is missing: the server's name or IP address
13: http[5].prot: unknown key; did you mean `port`?
15: keyvalue[0].redis: is missing: where the keys are, such as {url: redis://localhost}; or `table`
16: keyvalue[1].table: stands beside `redis`; a bucket is one or the other
17: keyvalue[2].access: a table can only be read; `redis` is for writing
17: keyvalue[2].table.path: the file missing.csv does not exist
18: keyvalue[3].table.key: is missing: the column to look up by
18: keyvalue[3].table.path: expected a file that ends in .parquet or .csv, found \"lookup\"
18: keyvalue[3].value_bytes: 2MiB is too much; at most 1 MiB
20: keyvalue: a second bucket is called \"d\"
21: config: expected keys and values, found a list
22: env: expected the name of a variable, found \"A=B\"
24: files[0].as: expected a path from the root such as /lookup, found \"lookup\"
24: files[0].path: the folder missing does not exist
25: files[1].as: expected a path from the root such as /lookup, found \"/a/../b\"
25: files[1].path: /proc/";
    let (given, process) = faults.split_at(faults.find("25: files[1].path: /proc/").unwrap() + 25);
    assert_eq!(given, expected);
    assert!(process.contains("shows the machine, not data; name the folder that is meant"), "{process}");
    assert!(
        process.ends_with("26: files[2].path: / shows the machine, not data; name the folder that is meant"),
        "{process}"
    );
    assert_eq!(
        grant_faults("      http: {host: a.b}\n"),
        "7: http: expected a list such as [{host: api.example.com}], found keys and values"
    );
}
