//! Every target against its corpus, and some thousand mutations of it from a seed that a failure tells.

use std::{collections::BTreeMap, fs, panic, path::Path as FilePath};

use arrow_cast::display::{ArrayFormatter, FormatOptions};

use super::*;

/// Mutations of each target: seconds, not minutes.
const MUTATIONS: usize = 20_000;

/// Longest input that is made.
const BYTES_MAX: usize = 4_096;

/// What often decides in a parser.
const TOKENS: [&[u8]; 24] = [
    b"null",
    b"true",
    b"-0",
    b"1e999",
    b"9223372036854775808",
    b"NaN",
    b"\"\\ud800\"",
    b"{\"a\":",
    b"[[",
    b"]}",
    b"\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"ARROW1",
    b"%2F",
    b"${A:-b}",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"'",
    b"\t",
];

/// The files of a target's corpus, sorted by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One change of an input.
fn mutate(random: &mut fastrand::Rng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.usize(..=input.len());
    let some = |random: &mut fastrand::Rng, from: &[u8]| {
        let start = random.usize(..=from.len());
        let end = random.usize(start..=from.len());
        from.get(start..end).unwrap_or_default().to_vec()
    };
    match random.u8(..6) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.u8(..);
            }
        }
        2 => input.truncate(at),
        3 => {
            let end = random.usize(at..=input.len());
            input.drain(at..end);
        }
        4 => drop(input.splice(at..at, TOKENS.get(random.usize(..TOKENS.len())).copied().unwrap_or_default().to_vec())),
        _ => {
            let other = corpus.get(random.usize(..corpus.len())).cloned().unwrap_or_default();
            let piece = some(random, &other);
            drop(input.splice(at..at, piece));
        }
    }
    input.truncate(BYTES_MAX);
}

/// Runs a target over its corpus and mutations.
fn run(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "no corpus of {name}");
    for input in &corpus {
        target(input);
    }
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..MUTATIONS {
        let mut input = corpus.get(random.usize(..corpus.len())).cloned().unwrap_or_default();
        for _ in 0..random.u8(1..8) {
            mutate(&mut random, &mut input, &corpus);
        }
        let found = panic::catch_unwind(|| target(&input));
        assert!(found.is_ok(), "{name}: seed {seed}, input {:?}", input.escape_ascii().to_string());
    }
}

#[test]
fn json_is_decoded_or_refused() {
    run("json", json);
}

#[test]
fn arrow_ipc_is_decoded_or_refused() {
    run("arrow_ipc", arrow_ipc);
}

#[test]
fn avro_is_decoded_or_refused() {
    run("avro", avro);
}

#[test]
fn protobuf_is_decoded_or_refused() {
    run("protobuf", protobuf);
}

#[test]
fn configurations_load_or_are_refused() {
    run("configuration", configuration);
}

#[test]
fn hive_paths_lead_back() {
    run("hive_path", hive_path);
}

#[test]
fn ledger_records_are_read_or_refused() {
    run("ledger_record", ledger_record);
}

/// Streams of one table by every writer that a plugin or a producer is likely to have; `writers/` made them. What is refused here would be
/// refused of honest people.
#[test]
fn streams_of_every_writer_are_read() {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("corpus/arrow_ipc");
    let cells = |writer: &str| {
        let stream = fs::read(folder.join(format!("{writer}_table.arrows"))).unwrap();
        let batches = ipc::read_rows(stream, Writer::Plugin, CAPS, |_| Ok::<_, ipc::Refused>(()));
        let batches = batches.unwrap_or_else(|refused| panic!("{writer}: {refused}"));
        batches.iter().for_each(ensure_sound);
        let first = batches.first().unwrap();
        let options = FormatOptions::new().with_null("null");
        let columns = first.schema_ref().fields().iter().zip(first.columns()).map(|(field, column)| {
            // A zone by its name is shown only by a library that we do not have.
            let column = match field.data_type() {
                DataType::Timestamp(..) => arrow_cast::cast(column, &DataType::Int64).unwrap(),
                _ => Arc::clone(column),
            };
            let shown = ArrayFormatter::try_new(&column, &options).unwrap();
            (field.name().clone(), (0..4).map(|row| shown.value(row).to_string()).collect::<Vec<_>>())
        });
        columns.collect::<BTreeMap<_, _>>()
    };
    let wanted = cells("pyarrow");
    assert_eq!((wanted.len(), wanted["s"].join(" ")), (11, "one null  größer".to_owned()));
    for writer in ["nanoarrow", "arrow_js", "flechette", "arrow_go"] {
        let found = cells(writer);
        assert!(found.len() >= 10, "{writer}");
        for (name, values) in found {
            assert_eq!(values, wanted[&name], "column {name} of {writer}");
        }
    }
}
