//! `plugins`: WebAssembly components in the order in which they run.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{download, grants, signature};
use crate::config::{
    ConfigPlaces, OnReject, OnTrap, PluginConfig, PluginLimits,
    fault::Place,
    limits::Limit,
    node::Node,
    reader::Section,
    sha256,
    value::{boolean, choice, count, count_up_to, duration, expected, positive_duration, size},
};

/// Most tries of one batch in fresh instances: each costs a call's whole time.
const RETRIES_MAX: u32 = 10;

/// The longest that a component may take to compile: the largest one that is known to work takes a minute.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(3600);

/// What the compiler takes for a small component, and some more.
const COMPILE_MEMORY_MIN: usize = 64 << 20;

/// Most batches in a row that may be lost before the circuit opens: who wants more wants none.
const OPEN_CIRCUIT_AFTER_MAX: u32 = 1_000_000;

/// What happens to refused rows.
const REJECT_CHOICES: [(&str, OnReject); 3] =
    [("dead_letter", OnReject::DeadLetter), ("drop", OnReject::Drop), ("fail", OnReject::Fail)];

/// One plugin with its place; `key` is its name where the plugins are a map.
/// `tenant` is whose pipeline it is in.
pub(super) fn read(
    section: Section<'_>,
    key: Option<&str>,
    at: usize,
    folder: &Path,
    tenant: &str,
) -> Option<(Place, PluginConfig)> {
    if !section.is_there() {
        if section.node_is_missing() {
            section.fault("", "expected keys and values such as {name: keep-eu, path: plugins/keep.wasm}");
        }
        return None;
    }
    let is_downloaded = section.has("url");
    let download = download::read(&section, folder);
    let path = match &download {
        Some(download) => Some(download.location.to_string().into()),
        None if is_downloaded => None,
        None => path(&section, folder),
    };
    let stem = match &download {
        Some(download) => download.location.stem().map(str::to_owned),
        None => path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned()),
    };
    let name = section.text("name").or_else(|| key.map(str::to_owned)).or(stem);
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("plugin-{at}"));
    if !is_downloaded && let Some(Err(message)) = path.as_deref().map(look_at) {
        section.fault("path", format!("plugin {name}: {message}"));
    }
    let sha256 = section.get("sha256", sha256);
    let signature = signature::read(section.section("signature"), folder, path.as_deref().filter(|_| !is_downloaded));
    let own = section.node("config");
    let config_json = own.map_or_else(|| serde_json::json!({}), Node::to_json).to_string();
    let config_places = ConfigPlaces::new(section.path_of("config"), section.place().clone(), own);
    let grants = grants::read(section.section("grants"), folder, tenant);
    let on_reject = section.get_or("on_reject", OnReject::DeadLetter, |text| choice(text, &REJECT_CHOICES));
    let (limits, limits_written) = limits(section.section("limits"), PluginLimits::default());
    let on_trap = on_trap(section.section("on_trap"));
    let place = section.place().clone();
    section.finish();
    let config = PluginConfig {
        name: name.into(),
        path: path?,
        download,
        sha256,
        signature,
        config_json,
        config_places,
        grants,
        limits,
        limits_written,
        on_reject,
        on_trap,
    };
    Some((place, config))
}

/// The component's file.
fn path(section: &Section<'_>, folder: &Path) -> Option<PathBuf> {
    let text = section.required_text("path", "the component's file; or `url`, where it is downloaded from")?;
    if text.contains("://") {
        section.fault("path", format!("{text} is an address; write it under `url`"));
        return None;
    }
    let place = section.node("path").map_or_else(|| section.place(), |node| &node.place);
    Some(Section::resolve(place, folder, &text))
}

/// Whether a file looks like a component; what is in it the engine judges.
fn look_at(path: &Path) -> Result<(), String> {
    let shown = path.display();
    if path.is_dir() {
        return Err(format!("{shown} is a folder; expected a component's file"));
    }
    let mut header = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut header));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("the file {shown} does not exist")),
        Err(error) => Err(format!("the file {shown} cannot be read: {error}")),
        Ok(_) => match header.as_slice() {
            [0, b'a', b's', b'm', _, _, 1, 0] => Ok(()),
            [0, b'a', b's', b'm', _, _, 0, 0] => Err(format!(
                "the file {shown} is a core module; expected a component, as `wasm-tools component new` or the target \
                 wasm32-wasip2 makes"
            )),
            _ => Err(format!("the file {shown} is not WebAssembly; expected a component")),
        },
    }
}

/// What a plugin may use, where what is not written is as in `limits`; and the keys that are written.
pub(super) fn limits(section: Section<'_>, mut limits: PluginLimits) -> (PluginLimits, Vec<&'static str>) {
    let mut written = Vec::new();
    for (key, limit) in limits.table() {
        if section.has(key) {
            written.push(key);
        }
        match (key, limit) {
            ("instances", Limit::Count(to)) => {
                *to = section.get_or(key, *to, count_up_to(PluginLimits::default().instances));
            }
            ("compile_memory", Limit::Bytes(to)) => *to = section.get_or(key, *to, compile_memory),
            ("compile_time", Limit::Time(to)) => *to = section.get_or(key, *to, compile_time),
            (_, Limit::Count(to)) => *to = section.get_or(key, *to, count),
            (_, Limit::Bytes(to)) => *to = section.get_or(key, *to, size),
            (_, Limit::Time(to)) => *to = section.get_or(key, *to, positive_duration),
        }
    }
    if !written.contains(&"output_logical_bytes") {
        // Without dictionaries the two are the same.
        limits.output_logical_bytes = limits.output_bytes;
    }
    section.finish();
    (limits, written)
}

/// What happens when a plugin traps or runs out of time.
fn on_trap(section: Section<'_>) -> OnTrap {
    let defaults = OnTrap::default();
    let backoff = section.section("backoff");
    let on_trap = OnTrap {
        retries: section.get_or("retries", defaults.retries, up_to(RETRIES_MAX)),
        then: section.get_or("then", defaults.then, |text| choice(text, &REJECT_CHOICES)),
        bisect: section.get_or("bisect", defaults.bisect, boolean),
        open_circuit_after: section.get_or(
            "open_circuit_after",
            defaults.open_circuit_after,
            up_to(OPEN_CIRCUIT_AFTER_MAX),
        ),
        backoff_from: backoff.get_or("from", defaults.backoff_from, duration),
        backoff_to: backoff.get_or("to", defaults.backoff_to, duration),
    };
    if on_trap.backoff_from > on_trap.backoff_to {
        let OnTrap { backoff_from, backoff_to, .. } = on_trap;
        backoff.fault("from", format!("{backoff_from:?} is longer than `to`, which is {backoff_to:?}"));
    }
    if on_trap.then == OnReject::Fail && on_trap.open_circuit_after > 0 && section.has("open_circuit_after") {
        section.fault(
            "open_circuit_after",
            "never comes to it: with `then: fail` the first batch that fails ends the pipeline; leave one of the two out",
        );
    }
    backoff.finish();
    section.finish();
    on_trap
}

/// How long a compiler may take.
fn compile_time(text: &str) -> Result<Duration, String> {
    let time = positive_duration(text)?;
    if time > COMPILE_TIME_MAX {
        return Err(format!("{text} is too long; at most an hour, since others wait for their turn to compile"));
    }
    Ok(time)
}

/// How much memory a compiler may take.
fn compile_memory(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if bytes < COMPILE_MEMORY_MIN {
        return Err(format!("{text} is too little to compile anything; at least 64MiB"));
    }
    Ok(bytes)
}

/// A number from 0 on.
fn up_to(most: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| expected(&format!("a number from 0 to {most}"), text))
    }
}
