//! Granted folders: what can be read, and every way out of them or to change them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
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
        }
    }
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
