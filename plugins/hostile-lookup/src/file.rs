//! Files: `{"op": "read" | "list" | "stat" | ..., "path", "target", "times"}` below the first folder that there is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    bindings::wasi::filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags},
    },
    number, text,
};

/// Tries one operation, once or more often, and tells what it came to: each outcome once, in the order of the alphabet.
pub(crate) fn attempt(step: &Value) -> String {
    let Some((folder, _)) = preopens::get_directories().into_iter().next() else { return "no folder".to_owned() };
    let once = |_| operate(step, &folder).unwrap_or_else(|error| error.name().to_owned());
    let outcomes: BTreeSet<String> = (0..number(step, "times").max(1)).map(once).collect();
    outcomes.into_iter().collect::<Vec<_>>().join(", ")
}

/// Does something in a folder.
fn operate(step: &Value, folder: &Descriptor) -> Result<String, ErrorCode> {
    let (path, target) = (text(step, "path"), text(step, "target"));
    let (follow, none) = (PathFlags::SYMLINK_FOLLOW, PathFlags::empty());
    let (reading, writing) = (DescriptorFlags::READ, DescriptorFlags::READ | DescriptorFlags::WRITE);
    let open = |how, rights| folder.open_at(follow, path, how, rights);
    let now = NewTimestamp::Now;
    match text(step, "op") {
        "read" => {
            let (bytes, _) = open(OpenFlags::empty(), reading)?.read(80, 0)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        "list" => {
            let entries = open(OpenFlags::DIRECTORY, reading)?.read_directory()?;
            let mut names = Vec::new();
            while let Some(entry) = entries.read_directory_entry()? {
                names.push(entry.name);
            }
            names.sort();
            return Ok(names.join(" "));
        }
        "stat" => drop(folder.stat_at(follow, path)?),
        "hash" => drop(folder.metadata_hash_at(follow, path)?),
        "readlink" => return folder.readlink_at(path),
        "open-to-write" => drop(open(OpenFlags::empty(), writing)?),
        "create" => drop(open(OpenFlags::CREATE, writing)?),
        "create-to-read" => drop(open(OpenFlags::CREATE, reading)?),
        "truncate" => drop(open(OpenFlags::TRUNCATE, reading)?),
        "truncate-to-write" => drop(open(OpenFlags::TRUNCATE, writing)?),
        "write" => drop(open(OpenFlags::empty(), reading)?.write(b"hostile", 0)?),
        "write-stream" => drop(open(OpenFlags::empty(), reading)?.write_via_stream(0)?),
        "append-stream" => drop(open(OpenFlags::empty(), reading)?.append_via_stream()?),
        "set-size" => open(OpenFlags::empty(), reading)?.set_size(0)?,
        "set-times" => open(OpenFlags::empty(), reading)?.set_times(now, now)?,
        "set-times-at" => folder.set_times_at(follow, path, now, now)?,
        "mkdir" => folder.create_directory_at(path)?,
        "rmdir" => folder.remove_directory_at(path)?,
        "unlink" => folder.unlink_file_at(path)?,
        "link" => folder.link_at(none, path, folder, target)?,
        "rename" => folder.rename_at(path, folder, target)?,
        "symlink" => folder.symlink_at(target, path)?,
        _ => return Ok("nothing".to_owned()),
    }
    Ok("done".to_owned())
}
