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
