//! `plugins[]`: what a plugin may cost, and where it comes from.

use super::*;

/// The faults of a plugin with these keys, without what they all begin with.
fn plugin_faults(keys: &str) -> String {
    let message = load_text(&format!("{RIGHT}plugins: [{{{keys}}}]\n"), &[], &[]).unwrap_err();
    message
        .lines()
        .map(|line| line.split_once("plugins[0]").map_or(line, |(_, words)| words))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn limits_of_compiling_are_read_and_refused_where_they_make_no_sense() {
    let text = format!("{RIGHT}plugins: [{{path: p.wasm, limits: {{compile_time: 5s, compile_memory: 64MiB}}}}]\n");
    let folder = folder_with(&text);
    let config = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let limits = config.pipelines[0].plugins[0].limits;
    assert_eq!((limits.compile_time.as_secs(), limits.compile_memory_bytes), (5, 64 << 20));
    std::fs::write(folder.path().join("orders.yaml"), config.to_yaml()).unwrap();
    let again = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    assert_eq!(again.pipelines[0].plugins[0].limits, limits);
    assert_eq!(
        plugin_faults("path: p.wasm, limits: {compile_time: 2h, compile_memory: 1MiB}"),
        ".limits.compile_memory: 1MiB is too little to compile anything; at least 64MiB\n\
         .limits.compile_time: 2h is too long; at most an hour, since others wait for their turn to compile"
    );
}

#[test]
fn a_plugin_is_downloaded_as_it_is_said_and_shown_without_its_secrets() {
    let digest = "ab".repeat(32);
    let text = format!(
        "{RIGHT}plugins:
  - url: oci://ghcr.io/team/keep-eu@sha256:{digest}
    download: {{username: me, password: geheim, timeout: 5s, allow_private: [10.0.0.0/8]}}
  - {{url: 'https://example.com/parse.wasm', download: {{token: geheim}}}}
  - {{path: p.wasm, sha256: {digest}}}
  - {{path: p.wasm, name: q}}
"
    );
    let folder = folder_with(&text);
    let config = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let pipeline = &config.pipelines[0];
    let names: Vec<_> = pipeline.plugins.iter().map(|plugin| &*plugin.name).collect();
    assert_eq!(names, ["keep-eu", "parse", "p", "q"]);
    assert_eq!(pipeline.unpinned_plugins(), ["parse", "q"]);
    assert_eq!(pipeline.private_downloads(), ["keep-eu"]);
    let shown = config.to_yaml();
    assert!(!shown.contains("geheim"), "{shown}");
    std::fs::write(folder.path().join("orders.yaml"), &shown).unwrap();
    let again = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    for (one, other) in pipeline.plugins.iter().zip(&again.pipelines[0].plugins) {
        let what = |plugin: &crate::config::PluginConfig| {
            plugin.download.as_ref().map(|one| (one.location.clone(), one.private.clone(), one.timeout))
        };
        assert_eq!(what(one), what(other));
    }
}

#[test]
fn downloads_that_cannot_be_are_told() {
    for (keys, words) in [
        ("url: 'http://example.com/p.wasm'", ".url: is not encrypted"),
        ("url: 'https://example.com/p.wasm', path: p.wasm", ".path: stands beside `url`"),
        ("path: 'https://example.com/p.wasm'", ".path: https://example.com/p.wasm is an address; write it under `url`"),
        ("path: p.wasm, download: {token: a}", ".download: says how to ask for `url`, which is not there"),
        ("url: 'https://a.b/p.wasm', download: {username: a}", ".download.username: is there without `password`"),
        ("url: 'https://a.b/p.wasm', download: {password: a}", ".download.password: is there without `username`"),
        (
            "url: 'https://a.b/p.wasm', download: {username: a, password: b, token: c}",
            ".download.token: stands beside `username`",
        ),
        ("url: 'https://a.b/p.wasm', download: {timeout: 2h}", ".download.timeout: 2h is too long; at most an hour"),
        (
            "url: 'https://a.b/p.wasm', download: {ca_file: none.pem}",
            ".download.ca_file: expected a file of certificates",
        ),
    ] {
        let found = plugin_faults(keys);
        assert!(found.starts_with(words) && !found.contains('\n'), "{keys}: {found}");
    }
}

#[test]
fn a_signature_is_beside_its_component_or_where_it_is_said() {
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let folder = folder_with(&format!("{RIGHT}plugins: [{{path: p.wasm, signature: {{public_key: {key}}}}}]\n"));
    let config = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let plugin = &config.pipelines[0].plugins[0];
    let files: Vec<_> = plugin.files().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(files, ["p.wasm", "p.wasm.minisig"]);
    std::fs::write(folder.path().join("p.wasm.minisig"), "").unwrap();
    std::fs::write(folder.path().join("orders.yaml"), config.to_yaml()).unwrap();
    let again = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    assert_eq!(again.pipelines[0].plugins[0].signature, plugin.signature);
    assert_eq!(
        plugin_faults("path: p.wasm, signature: {public_key: RWQ}"),
        ".signature.public_key: expected a public key of minisign, the line of letters and digits in minisign.pub, \
         found \"RWQ\""
    );
    assert_eq!(
        plugin_faults(&format!("url: 'https://example.com/p.wasm', signature: {{public_key: {key}}}")),
        ".signature.path: is missing: the signature's file; a plugin that is downloaded has none beside it"
    );
    assert_eq!(
        plugin_faults("path: p.wasm, signature: {path: none.minisig}").lines().count(),
        2,
        "no key, and no such file"
    );
}
