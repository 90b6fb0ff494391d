//! The process that compiles: limits first, then one component from standard input, machine code to standard output.

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::{self, ExitCode},
};

use super::confine::{self, Limits};
use crate::{config::PluginLimits, plugin::engine};

/// The first argument, which no person gives.
const COMMAND: &str = "internal-compile-plugin";
/// Its exit code where the machine code is written.
pub(super) const DONE: i32 = 0;
/// Its exit code where the component is refused, in words on standard error.
pub(super) const REFUSED: i32 = 3;
/// Its exit code where the limits cannot be set.
pub(super) const NO_LIMITS: i32 = 4;
/// What it says first where it is not cut off.
pub(super) const UNCONFINED: &str = "unconfined: ";
/// Threads that compile: more take more memory at once, and gain little for a component of usual size.
const THREADS: u64 = 4;

/// Its environment: so many threads, and an allocator that takes memory when it is asked for some, not a gigabyte ahead.
pub(super) const ENVIRONMENT: [(&str, &str); 2] = [("RAYON_NUM_THREADS", "4"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];

/// The arguments that start it.
pub(super) fn arguments(limits: &PluginLimits, code_max: u64) -> [String; 5] {
    // A second guard behind the clock of the parent, in whole seconds.
    let cpu_seconds = limits.compile_time.as_secs().saturating_add(1).saturating_mul(THREADS);
    [
        COMMAND.to_owned(),
        process::id().to_string(),
        limits.compile_memory_bytes.to_string(),
        cpu_seconds.to_string(),
        code_max.to_string(),
    ]
}

/// Compiles one component, where this process was started for that. To be called before anything else: there must be no other
/// thread.
#[must_use]
pub fn answer_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(COMMAND) {
        return None;
    }
    let numbers: Vec<u64> = arguments.map_while(|argument| argument.parse().ok()).collect();
    let (code, words) = match numbers.as_slice() {
        [parent, memory, cpu_seconds, code_max] => {
            answer(*parent, Limits { memory: *memory, cpu_seconds: *cpu_seconds, file: *code_max })
        }
        _ => (NO_LIMITS, "is for fs-data-sink's own use".to_owned()),
    };
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "{words}");
    Some(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Compiles; the exit code, and words.
fn answer(parent: u64, limits: Limits) -> (i32, String) {
    if let Err(error) = confine::set_limits(parent, limits) {
        return (NO_LIMITS, format!("limits cannot be set: {error}"));
    }
    let mut component = Vec::new();
    if let Err(error) = confine::cut_off() {
        // The parent says so in its log, and goes on.
        let _ = writeln!(io::stderr(), "{UNCONFINED}{error}");
    }
    if let Err(error) = io::stdin().lock().read_to_end(&mut component) {
        return (NO_LIMITS, format!("the component cannot be read: {error}"));
    }
    let code = engine::for_compiling().and_then(|engine| engine.precompile_component(&component));
    let code = match code {
        Ok(code) => code,
        Err(error) => return (REFUSED, format!("{error:#}")),
    };
    if code.len() as u64 >= limits.file {
        return (REFUSED, format!("its machine code has {} bytes", code.len()));
    }
    let mut output = io::stdout().lock();
    match output.write_all(&code).and_then(|()| output.flush()) {
        Ok(()) => (DONE, String::new()),
        Err(error) => (NO_LIMITS, format!("the machine code cannot be written: {error}")),
    }
}
