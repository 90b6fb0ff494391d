//! A room of the host does not import another room: `pipeline` introduces them, and `cli` starts it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test: a panic is its way to fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms, in the order in which data walks through them.
const ROOMS: [&str; 6] = ["source", "decode", "plugin", "partition", "file", "commit"];

/// Words that every room may use; they use each other, but no room.
const WORDS: [&str; 11] = [
    "batch",
    "checkpoint",
    "memory",
    "oauth",
    "redis_client",
    "error",
    "config",
    "ipc",
    "store",
    "telemetry",
    "tenant",
];

/// Those that introduce the rooms to each other: they may import any.
const INTRODUCERS: [&str; 4] = ["pipeline", "cli", "lib", "main"];

/// The modules of the crate that a source text names, wherever it names them: in `use`, with braces or without, and in
/// paths in the middle of the code. `at` is the module's own path, to follow `super`.
fn modules_named(text: &str, at: &[&str]) -> Vec<String> {
    let code = without_comments_and_strings(text);
    let mut tokens: Vec<&str> = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find(|letter: char| letter.is_alphanumeric() || "_:{},;".contains(letter)) {
        rest = &rest[start..];
        let word = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(rest.len());
        let length = if rest.starts_with("::") { 2 } else { word.max(1) };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let begins_path = index == 0 || tokens[index - 1] != "::";
        if begins_path && matches!(*token, "crate" | "super" | "self" | "fs_data_sink") {
            follow(&tokens[index..], at, &mut found);
        }
    }
    found
}

/// Follows one path from `crate`, `super` or `self` to the first module below the crate's root.
fn follow(tokens: &[&str], at: &[&str], found: &mut Vec<String>) {
    let (mut place, mut next) = match tokens[0] {
        "crate" | "fs_data_sink" => (0, 1),
        "self" => (at.len(), 1),
        _ => (at.len().saturating_sub(1), 1),
    };
    while tokens.get(next) == Some(&"::") && tokens.get(next + 1) == Some(&"super") {
        place = place.saturating_sub(1);
        next += 2;
    }
    if place > 0 || tokens.get(next) != Some(&"::") {
        return;
    }
    match tokens.get(next + 1) {
        Some(&"{") => {
            let mut depth = 0;
            for (index, token) in tokens.iter().enumerate().skip(next + 1) {
                match *token {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    name if depth == 1 && matches!(tokens[index - 1], "{" | ",") => found.push(name.to_owned()),
                    _ => {}
                }
                if depth == 0 {
                    return;
                }
            }
        }
        Some(name) => found.push((*name).to_owned()),
        None => {}
    }
}

/// The text with comments, strings and characters blanked: they name modules without importing them.
fn without_comments_and_strings(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let (mut code, mut index) = (String::new(), 0);
    while index < letters.len() {
        let next = letters.get(index + 1).copied();
        match letters[index] {
            '/' if next == Some('/') => {
                while index < letters.len() && letters[index] != '\n' {
                    index += 1;
                }
            }
            '/' if next == Some('*') => {
                while index < letters.len() && !(letters[index] == '*' && letters.get(index + 1) == Some(&'/')) {
                    index += 1;
                }
                index += 2;
            }
            'r' if next == Some('#') && letters.get(index + 2) == Some(&'"') => {
                index += 3;
                while index < letters.len() && !(letters[index] == '"' && letters.get(index + 1) == Some(&'#')) {
                    index += 1;
                }
                index += 2;
            }
            '"' => {
                index += 1;
                while index < letters.len() && letters[index] != '"' {
                    index += if letters[index] == '\\' { 2 } else { 1 };
                }
                index += 1;
            }
            // A quote in a character would open a string.
            '\'' if next == Some('"') && letters.get(index + 2) == Some(&'\'') => index += 3,
            '\'' if next == Some('\\') => index += 4,
            letter => {
                code.push(letter);
                index += 1;
            }
        }
    }
    code
}

/// The imports of a file that its place does not allow.
fn forbidden(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let home = parts[0].trim_end_matches(".rs");
    if INTRODUCERS.contains(&home) {
        return Vec::new();
    }
    assert!(
        ROOMS.contains(&home) || WORDS.contains(&home),
        "{}: neither a room nor a word; say which it is",
        path.display()
    );
    let file = parts[parts.len() - 1].trim_end_matches(".rs");
    let mut at: Vec<&str> = parts[..parts.len() - 1].to_vec();
    if file != "mod" {
        at.push(file);
    }
    // A module inside a file is one level deeper: what `super` means there is followed from both levels.
    let mut deeper = at.clone();
    deeper.push("tests");
    let mut named = modules_named(text, &at);
    named.extend(modules_named(text, &deeper));
    named.retain(|name| {
        let foreign_room = ROOMS.contains(&name.as_str()) && name != home;
        foreign_room || INTRODUCERS.contains(&name.as_str())
    });
    named.sort();
    named.dedup();
    named.into_iter().map(|name| format!("{} imports {name}", path.display())).collect()
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Scenario: all sources of the host are read.
/// Guarantees: no room knows another, so each can be read, tested and replaced alone.
#[test]
fn no_room_imports_another() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "only {} sources were found", files.len());
    for room in ROOMS.iter().chain(&WORDS) {
        let there = root.join(room).join("mod.rs").exists() || root.join(format!("{room}.rs")).exists();
        assert!(there, "{room} is gone: bring this test up to date");
    }
    let faults: Vec<String> = files
        .iter()
        .flat_map(|file| forbidden(file.strip_prefix(&root).unwrap(), &fs::read_to_string(file).unwrap()))
        .collect();
    assert!(faults.is_empty(), "rooms import each other:\n{}", faults.join("\n"));
}

/// Scenario: imports are planted in every way that Rust has.
/// Guarantees: the test above can fail.
#[test]
fn planted_imports_are_found() {
    let path = Path::new("decode/json.rs");
    for planted in [
        "use crate::source::SourceStream;",
        "use crate::{batch::Envelope, error, source};",
        "use crate::{\n    config::{self, DecodeConfig},\n    source::{self as other, SourceEvent},\n};",
        "fn f() { crate::file::Generation::new(); }",
        "use super::super::commit::Committer;",
        "mod tests { use super::super::super::partition::split; }",
        "let x: fs_data_sink::plugin::Chain = y;",
        "use crate::pipeline::run;",
        "use crate::{cli};",
    ] {
        assert_eq!(forbidden(path, planted).len(), 1, "not found: {planted}");
    }
    for allowed in [
        "use crate::{batch::{Envelope, Rejection}, config, decode::infer, store};",
        "use super::{infer, record, source_text};",
        "// use crate::source::SourceStream;",
        "/// See [`crate::source`].",
        "let text = \"crate::source\"; let quote = '\"'; let other = r#\"crate::file\"#;",
        "use some_crate::source::Thing; use self::partition::Local;",
    ] {
        assert_eq!(forbidden(path, allowed), Vec::<String>::new(), "refused: {allowed}");
    }
    assert_eq!(forbidden(Path::new("pipeline.rs"), "use crate::{source, file};"), Vec::<String>::new());
    assert_eq!(forbidden(Path::new("store/mod.rs"), "use crate::commit;"), ["store/mod.rs imports commit"]);
}
