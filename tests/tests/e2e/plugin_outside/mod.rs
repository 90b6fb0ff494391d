//! The same plugin in each language: with state, rows that it holds, a bucket, a server, the log, metrics and granted values.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, Reader},
    program::Workspace,
};
use serde_json::Value;

use crate::shared::{LONG, SHORT};

/// A request of a plugin comes at once or not at all.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Builds the plugin of this language beside what the workspace has, and runs it in a pipeline that stops in the middle and goes on. The
/// folder has what `prepare` puts there.
pub(crate) fn reaches_what_it_is_granted(
    workspace: &Workspace,
    language: &str,
    (file, source): (&str, &str),
    prepare: impl FnOnce(&Workspace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    workspace.run(&["plugin", "new", "--language", language, "numbers"], SHORT)?.expect(0, &[])?;
    workspace.write(&format!("numbers/{file}"), source)?;
    workspace.write("numbers/config-schema.json", "{\"required\": [\"url\", \"fail\"]}")?;
    prepare(workspace)?;
    workspace.run(&["plugin", "build", "numbers"], 3 * LONG)?.expect(0, &["numbers.wasm: numbers"])?;
    let (address, asked) = greeter()?;
    workspace.write("rows.ndjson", ["DE", "FR", "DE", "XX", "FR", "DE"].map(row).concat())?;
    workspace.write("names.csv", "key,name\nDE,Germany\nFR,France\n")?;
    workspace.write("numbers.yaml", yaml(address, false, true))?;
    workspace.write("fails.yaml", yaml(address, true, true))?;
    workspace.write("poor.yaml", yaml(address, false, false))?;
    let needs = [
        "wasi:keyvalue/store@0.2.0-draft needs grants.keyvalue",
        "wasi:http/outgoing-handler@0.2.12 needs grants.http",
    ];
    workspace.run(&["validate", "poor.yaml"], LONG)?.expect(2, &["grants:"])?;
    workspace.run(&["plugin", "inspect", "numbers/numbers.wasm"], LONG)?.expect(0, &needs)?;
    let test = ["plugin", "test", "--input", "rows.ndjson", "--pipeline", "fails.yaml#numbers"];
    workspace.run(&test, LONG)?.expect(0, &["plugin-failed: 6 rows", "the rows have no column", "colour"])?;
    let first = workspace.run(&["run", "numbers.yaml", "--max-batches", "1"], LONG)?;
    first.expect(0, &["heard eu and "])?;
    ensure!(asked.load(Ordering::SeqCst) == 1, "the server was asked {} times", asked.load(Ordering::SeqCst));
    let numbers = rows(workspace)?;
    ensure!(numbers == [(1, "DE Germany hello".to_owned()), (2, "FR France hello".to_owned())], "{numbers:?}");
    workspace.run(&["run", "numbers.yaml"], LONG)?.expect(0, &[])?;
    let numbers: Vec<_> = rows(workspace)?.into_iter().map(|(number, words)| format!("{number} {words}")).collect();
    let wanted = ["1 DE Germany", "2 FR France", "3 DE Germany", "4 XX null", "5 FR France", "6 DE Germany"];
    ensure!(numbers == wanted.map(|words| format!("{words} hello")), "{numbers:?}");
    Ok(())
}

/// A line of the input.
fn row(country: &str) -> String {
    format!("{{\"country\": \"{country}\"}}\n")
}

/// The pipeline, with two rows a batch.
fn yaml(address: SocketAddr, fails: bool, is_granted: bool) -> String {
    let port = address.port();
    let grants = format!(
        "    grants:
      http: [{{host: 127.0.0.1, scheme: http, port: {port}, allow_private: true}}]
      keyvalue: [{{bucket: names, table: {{path: names.csv, key: key, value: name}}}}]
      config: {{region: eu}}
"
    );
    format!(
        "name: numbers
source: {{type: file, paths: [rows.ndjson], batch_size: 2}}
plugins:
  - name: numbers
    path: numbers/numbers.wasm
    config: {{url: \"http://{address}/greeting\", fail: {fails}}}
{}sink: {{type: local, base_path: numbers-lake}}
telemetry: {{log_format: text, listen: none}}
",
        if is_granted { &grants } else { "" }
    )
}

/// What is in the lake: number, and the rest of the row.
fn rows(workspace: &Workspace) -> anyhow::Result<Vec<(u64, String)>> {
    let lake = workspace.path().join("numbers-lake");
    let seen = Lake::Local(&lake).read(Reader::PyArrow, &[], workspace.path())?;
    let mut rows = Vec::new();
    for line in fs::read_to_string(seen.rows)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("null").to_owned();
        let number = row.get("seen").and_then(Value::as_u64).context("a row without a number")?;
        rows.push((number, [text("country"), text("name"), text("greeting")].join(" ")));
    }
    rows.sort_unstable();
    Ok(rows)
}

/// A server that greets those who say who they are, and counts them. It ends with the process.
fn greeter() -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, asked) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that breaks is missed by the one who asked.
            if greet(client).is_ok_and(|is_known| is_known) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    Ok((address, asked))
}

/// Answers one request; whether it had the field that was wanted.
fn greet(mut client: TcpStream) -> anyhow::Result<bool> {
    client.set_read_timeout(Some(REQUEST_LIMIT))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let is_known = String::from_utf8_lossy(&head).to_lowercase().contains("x-who: numbers");
    let body = if is_known { "hello" } else { "who are you?" };
    write!(client, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())?;
    Ok(is_known)
}
