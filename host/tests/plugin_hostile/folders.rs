//! Granted folders: what can be read, and every way out of them or to change them.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    process::Command,
    time::SystemTime,
};

use fs_data_sink::config::{FolderGrant, Grants};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{heard::Heard, outside::outcomes};

/// A folder that is granted, beside one that is not, with links between them.
fn folders() -> (TempDir, FolderGrant) {
    let root = tempfile::tempdir().unwrap();
    let (granted, secret) = (root.path().join("granted"), root.path().join("secret"));
    fs::create_dir_all(granted.join("sub")).unwrap();
    fs::create_dir_all(&secret).unwrap();
    fs::write(granted.join("table.txt"), "table").unwrap();
    fs::write(granted.join("sub/deep.txt"), "deep").unwrap();
    fs::write(secret.join("key.txt"), "geheim").unwrap();
    fs::set_permissions(granted.join("table.txt"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink("table.txt", granted.join("inside")).unwrap();
    symlink("../secret/key.txt", granted.join("relative")).unwrap();
    symlink(secret.join("key.txt"), granted.join("absolute")).unwrap();
    symlink("../secret", granted.join("folder")).unwrap();
    symlink("/proc/self/root", granted.join("proc")).unwrap();
    symlink("sub/../../secret", granted.join("winding")).unwrap();
    let grant = FolderGrant { path: granted, name: "/lookup".to_owned() };
    (root, grant)
}

/// A step with a file.
fn file(op: &str, path: &str) -> Value {
    json!({"file": {"op": op, "path": path, "target": "new"}})
}

/// What steps come to in a granted folder.
async fn tried(grant: &FolderGrant, steps: &[(&str, &str)]) -> Vec<String> {
    let steps: Vec<_> = steps.iter().map(|(op, path)| file(op, path)).collect();
    outcomes(&json!(steps), |grants: &mut Grants| grants.files = vec![grant.clone()]).await
}

#[tokio::test]
async fn what_is_in_a_granted_folder_can_be_read() {
    let (_root, grant) = folders();
    let told = tried(
        &grant,
        &[
            ("list", "."),
            ("read", "table.txt"),
            ("read", "sub/deep.txt"),
            ("read", "sub/../table.txt"),
            ("read", "inside"),
        ],
    )
    .await;
    assert_eq!(told, ["absolute folder inside proc relative sub table.txt winding", "table", "deep", "table", "table"]);
    assert_eq!(outcomes(&json!([file("list", ".")]), |_| {}).await, ["no folder"]);
}

#[tokio::test]
async fn no_path_leads_out_of_a_granted_folder() {
    let (_root, grant) = folders();
    for path in [
        "..",
        "../secret/key.txt",
        "sub/../../secret/key.txt",
        "/etc/passwd",
        "relative",
        "absolute",
        "folder/key.txt",
        "proc/etc/passwd",
        "winding/key.txt",
        "./../granted/../secret/key.txt",
        "sub/./.././../secret/key.txt",
    ] {
        for op in ["read", "stat", "hash", "open-to-write", "create", "truncate", "list"] {
            let (heard, _guard) = Heard::listen();
            let told = tried(&grant, &[(op, path)]).await;
            assert!(!told[0].contains("geheim") && !told[0].contains("root:"), "{op} {path}: {}", told[0]);
            assert_eq!(told, ["not-permitted"], "{op} {path}");
            heard.expect("files", "not-permitted");
            let words = format!("{path:?}: it leads out of the granted folder, or would change it");
            assert!(heard.lines().iter().any(|line| line.contains(&words)), "{words}: {:?}", heard.lines());
        }
    }
}

/// Paths that lead out of the folder, or try to, in more ways than anybody writes them.
const ODD_PATHS: [&str; 27] = [
    "",
    "/",
    "//",
    "..",
    "../",
    "/..",
    "./..",
    "sub/..",
    "sub/../..",
    "sub/../../",
    "../granted",
    "../secret",
    "../secret/",
    "../secret/key.txt",
    "../secret/key.txt/",
    "..//secret//key.txt",
    "/etc/passwd",
    "//etc/passwd",
    "relative",
    "relative/",
    "absolute/",
    "folder",
    "folder/",
    "folder/..",
    "proc/",
    "winding/../key.txt",
    "inside/../../secret/key.txt",
];

/// Everything that can be done with a path; what needs another one makes `new`.
const OPERATIONS: [&str; 22] = [
    "read",
    "list",
    "stat",
    "hash",
    "readlink",
    "open-to-write",
    "create",
    "create-to-read",
    "truncate",
    "truncate-to-write",
    "write",
    "write-stream",
    "append-stream",
    "set-size",
    "set-times",
    "set-times-at",
    "mkdir",
    "rmdir",
    "unlink",
    "link",
    "rename",
    "symlink",
];

#[tokio::test]
async fn no_operation_on_an_odd_path_shows_or_changes_anything_outside() {
    let (root, grant) = folders();
    // Who first logs a line in a process with nobody listening on its thread may silence it for tests that do.
    let (_heard, _guard) = Heard::listen();
    let mut outcomes = Vec::new();
    for path in ODD_PATHS {
        let steps = OPERATIONS.map(|op| (op, path));
        let told = tried(&grant, &steps).await;
        assert_eq!(told.len(), steps.len(), "{told:?}");
        outcomes.extend(steps.into_iter().zip(told));
    }
    for ((op, path), told) in outcomes {
        // What is in the folder may be looked at under any name, and a link may be read that leads out of it.
        let is_shown = match (op, told.as_str()) {
            ("stat" | "hash", "done") | ("list", "absolute folder inside proc relative sub table.txt winding") => {
                path == "sub/.."
            }
            ("readlink", "../secret/key.txt") => path == "relative",
            ("readlink", "../secret") => path == "folder",
            (_, error) => {
                let errors = ["not-permitted", "no-entry", "not-directory", "is-directory", "invalid", "loop"];
                errors.contains(&error) || error == "bad-descriptor"
            }
        };
        assert!(is_shown, "{op} {path:?}: {told}");
    }
    let names = |folder: &str| {
        let mut names: Vec<_> = fs::read_dir(root.path().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!((names("."), names("secret")), ("granted secret".to_owned(), "key.txt".to_owned()));
    assert_eq!(names("granted"), "absolute folder inside proc relative sub table.txt winding");
    assert_eq!(fs::read_to_string(root.path().join("secret/key.txt")).unwrap(), "geheim");
}

#[tokio::test]
async fn a_pipe_in_a_granted_folder_keeps_nobody_waiting() {
    let (_root, grant) = folders();
    assert!(Command::new("mkfifo").arg(grant.path.join("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(grant.path.join("socket")).unwrap();
    symlink("pipe", grant.path.join("to-pipe")).unwrap();
    let (heard, _guard) = Heard::listen();
    let steps =
        [("read", "pipe"), ("open-to-write", "pipe"), ("read", "to-pipe"), ("read", "socket"), ("stat", "pipe")];
    let told = tried(&grant, &steps).await;
    let refused = "not-permitted";
    assert_eq!(told, [refused, refused, refused, refused, "done"]);
    heard.expect("files", "special-file");
}

#[tokio::test]
async fn nothing_in_a_granted_folder_can_be_changed() {
    let (root, grant) = folders();
    let state = || -> Vec<(String, u64, SystemTime)> {
        let mut entries: Vec<_> = ["", "sub"]
            .iter()
            .flat_map(|folder| fs::read_dir(grant.path.join(folder)).unwrap())
            .map(|entry| {
                let entry = entry.unwrap();
                let about = fs::symlink_metadata(entry.path()).unwrap();
                (entry.path().display().to_string(), about.len(), about.modified().unwrap())
            })
            .collect();
        entries.sort();
        entries
    };
    let before = state();
    for (op, path) in [
        ("open-to-write", "table.txt"),
        ("create", "new"),
        ("create-to-read", "new"),
        ("truncate", "table.txt"),
        ("truncate-to-write", "table.txt"),
        ("write", "table.txt"),
        ("write-stream", "table.txt"),
        ("append-stream", "table.txt"),
        ("set-size", "table.txt"),
        ("set-times", "table.txt"),
        ("set-times-at", "table.txt"),
        ("mkdir", "new"),
        ("rmdir", "sub"),
        ("unlink", "table.txt"),
        ("unlink", "inside"),
        ("link", "table.txt"),
        ("rename", "table.txt"),
        ("symlink", "new"),
    ] {
        let (heard, _guard) = Heard::listen();
        assert_eq!(tried(&grant, &[(op, path)]).await, ["not-permitted"], "{op} {path}");
        heard.expect("files", "not-permitted");
    }
    assert_eq!(state(), before);
    assert_eq!(fs::read_to_string(root.path().join("secret/key.txt")).unwrap(), "geheim");
    assert_eq!(fs::read_to_string(grant.path.join("table.txt")).unwrap(), "table");
}
