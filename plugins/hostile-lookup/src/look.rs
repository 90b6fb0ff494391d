//! What can be seen: `"environment"`, `"config"`, `"folders"`, `"clock"`, `"random"`.

use crate::bindings::wasi::{
    cli::environment,
    clocks::{monotonic_clock, wall_clock},
    config::store,
    filesystem::preopens,
    random::{insecure_seed, random},
};

/// Looks at something and tells what is there.
pub(crate) fn at(what: &str) -> String {
    match what {
        "environment" => pairs(environment::get_environment()),
        "config" => pairs(store::get_all().unwrap_or_default()),
        "folders" => preopens::get_directories().into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" "),
        "clock" => {
            let now = wall_clock::now();
            format!("{} {} {}", now.seconds, now.nanoseconds, monotonic_clock::now())
        }
        "random" => format!("{:?} {:?}", random::get_random_bytes(8), insecure_seed::insecure_seed()),
        _ => "nothing".to_owned(),
    }
}

/// Names and values.
fn pairs(pairs: Vec<(String, String)>) -> String {
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// Whether the environment says so.
pub(crate) fn is_told_to_be_deterministic() -> bool {
    environment::get_environment().iter().any(|(name, _)| name == "DETERMINISTIC")
}
