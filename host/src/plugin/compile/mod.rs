//! Components are compiled in a process of their own, since a compiler is a large program that a stranger's bytes steer.
//!
//! Comes in: the bytes of a component. Goes out: machine code, or words. Promises: it ends within `limits.compile_time` and takes
//! no more than `limits.compile_memory`; whatever becomes of the compiler (no memory, a crash, an endless loop), this process only
//! hears of it. Few run at once, and none of a tenant's keeps that of another waiting (`seats`); what cannot be compiled is not
//! tried again and again (`failed`).
//!
//! The process is this very program, started once more (`child`): the same build, so what it writes is what this one would have
//! written. It gets the component as its standard input and answers on its standard output, both in memory. It has no
//! environment, no file, no network, no child and no way to make memory executable (`confine`). What it answers is machine code that is
//! then believed: the limits keep the host alive beside a compiler that fails; they are no defence against a compiler that lies.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use wasmtime::Engine;

use crate::config::PluginLimits;
use failed::Failed;
use seats::Seats;

mod child;
mod confine;
mod failed;
mod seats;

pub use child::answer_if_asked;

/// This program, also after its file was replaced by a newer one.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The longest pause between two looks at a compiler.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Words of a compiler that are kept.
const WORDS_MAX: u64 = 4 << 10;
/// Machine code: several times what comes of the largest component, and a limit on what one can be made to write.
const CODE_MAX: u64 = 1 << 30;

/// Which program compiles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// The running program, started once more. It has to call [`answer_if_asked`] first of all, as `fs-data-sink` does.
    #[default]
    ThisProgram,
    /// Another program of the same build that does: for tests, whose own program does not.
    Program(PathBuf),
    /// None: the component is compiled in this process, without time limit and memory limit. For benchmarks.
    InProcess,
}

/// Why there is no machine code.
#[derive(Clone, Debug)]
pub(super) struct CompileFault {
    /// In words that continue "the file ...".
    pub(super) words: String,
    /// The limit that was hit: the key below `limits`.
    pub(super) limit: Option<&'static str>,
    /// Whether it cost something and the same component comes to the same end within the same limits.
    pub(super) lasts: bool,
}

impl From<String> for CompileFault {
    fn from(words: String) -> Self {
        Self { words, limit: None, lasts: false }
    }
}

/// Starts compilers, and not too many.
#[derive(Debug)]
pub(super) struct Compilers {
    /// Which program.
    compiler: Compiler,
    /// Who may run one.
    seats: Seats,
    /// What came to a bad end.
    failed: Failed,
}

impl Compilers {
    /// None runs yet.
    pub(super) fn new(compiler: Compiler) -> Self {
        Self { compiler, seats: Seats::default(), failed: Failed::default() }
    }

    /// Machine code of a component of a tenant, for `Component::deserialize`. Blocks. `digest` is the component's SHA-256.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        component: &[u8],
        digest: &[u8; 32],
        tenant: &str,
        limits: &PluginLimits,
    ) -> Result<Vec<u8>, CompileFault> {
        let program = match &self.compiler {
            Compiler::ThisProgram => Path::new(THIS_PROGRAM),
            Compiler::Program(path) => path,
            Compiler::InProcess => {
                return engine.precompile_component(component).map_err(|error| refused(&format!("{error:#}")).into());
            }
        };
        self.failed.check(digest, limits)?;
        let seat = self.seats.take(tenant);
        // Another pipeline may have tried the same while this one waited.
        self.failed.check(digest, limits)?;
        let compiled = run(program, component, limits);
        drop(seat);
        compiled.inspect_err(|fault| self.failed.note(digest, limits, fault))
    }
}

/// A process that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a compiler came to.
struct Outcome {
    /// How it ended; none where it had to be ended.
    status: Option<ExitStatus>,
    /// What it said.
    words: String,
}

/// Runs one compiler.
fn run(program: &Path, component: &[u8], limits: &PluginLimits) -> Result<Vec<u8>, CompileFault> {
    let failed = |what: &str, error: io::Error| {
        CompileFault::from(format!("cannot be compiled: {what} {}: {error}", program.display()))
    };
    let no_memory = |error| failed("no memory to share with", error);
    let mut input = confine::memory_file().map_err(no_memory)?;
    input.write_all(component).and_then(|()| input.rewind()).map_err(no_memory)?;
    let output = confine::memory_file().map_err(no_memory)?;
    let writer = output.try_clone().map_err(no_memory)?;
    let mut command = Command::new(program);
    command
        .args(child::arguments(limits, CODE_MAX))
        .env_clear()
        .envs(child::ENVIRONMENT)
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(writer))
        .stderr(Stdio::piped());
    let started = Instant::now();
    let running = command.spawn().map(Running).map_err(|error| failed("cannot start the compiler", error))?;
    // What it was started with is its own now.
    drop(command);
    let outcome = wait(running, started + limits.compile_time).map_err(|error| failed("lost the compiler", error))?;
    judge(&outcome, limits)?;
    read_code(output)
}

/// Waits for a compiler to end, and ends it at the deadline.
fn wait(mut running: Running, deadline: Instant) -> io::Result<Outcome> {
    let stderr = running.0.stderr.take();
    let listener = thread::Builder::new().name("plugin-compiler".to_owned()).spawn(move || {
        let Some(mut stderr) = stderr else { return String::new() };
        let mut words = Vec::new();
        // What cannot be read is missing from a message; the rest is read so that nobody waits for room.
        let _ = stderr.by_ref().take(WORDS_MAX).read_to_end(&mut words);
        let _ = io::copy(&mut stderr, &mut io::sink());
        String::from_utf8_lossy(&words).trim().to_owned()
    })?;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = running.0.try_wait()? {
            break Some(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break None;
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOK_PAUSE);
    };
    // With it ends its standard error, and so the listener.
    drop(running);
    Ok(Outcome { status, words: listener.join().unwrap_or_default() })
}

/// The words for a compiler that did not come to its end.
fn judge(outcome: &Outcome, limits: &PluginLimits) -> Result<(), CompileFault> {
    let Outcome { status, words } = outcome;
    let mut words = words.as_str();
    if let Some(said) = words.strip_prefix(child::UNCONFINED) {
        let (reason, behind) = said.split_once('\n').unwrap_or((said, ""));
        tracing::warn!("plugins are compiled with limits, but not cut off from files and network: {reason}");
        words = behind;
    }
    let slow = || CompileFault {
        words: format!(
            "takes more than {:?} to compile, and was stopped (limits.compile_time); a component that was not made for that does \
             not take so long",
            limits.compile_time
        ),
        limit: Some("compile_time"),
        lasts: true,
    };
    let Some(status) = status else { return Err(slow()) };
    match (status.code(), status.signal()) {
        (Some(child::DONE), _) => Ok(()),
        (Some(child::REFUSED), _) => Err(refused(words).into()),
        (_, Some(libc::SIGXCPU)) => Err(slow()),
        // What Rust says before it gives up, and what it then is.
        _ if words.contains("memory allocation of ") => Err(CompileFault {
            words: format!(
                "takes more than {} MiB of memory to compile, and was stopped (limits.compile_memory)",
                limits.compile_memory_bytes >> 20
            ),
            limit: Some("compile_memory"),
            lasts: true,
        }),
        (Some(code), _) => {
            let fault = crash(&format!("exit code {code}"), words);
            Err(CompileFault { lasts: code != child::NO_LIMITS, ..fault })
        }
        (None, Some(libc::SIGKILL)) => Err(crash("killed from outside, as a machine without memory does", words)),
        (None, signal) => {
            let fault = crash(&format!("signal {}", signal.unwrap_or_default()), words);
            Err(CompileFault { lasts: true, ..fault })
        }
    }
}

/// The words for a component that the compiler does not take.
fn refused(words: &str) -> String {
    format!("cannot be compiled; it is damaged or cut short: {words}")
}

/// The words for a compiler that broke down.
fn crash(how: &str, words: &str) -> CompileFault {
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    format!("made the compiler fail ({how}); it is damaged, or made to do so, and nothing of it was run{said}").into()
}

/// What a compiler wrote.
fn read_code(mut output: File) -> Result<Vec<u8>, CompileFault> {
    let mut code = Vec::new();
    let read = output.rewind().and_then(|()| output.take(CODE_MAX).read_to_end(&mut code));
    read.map_err(|error| format!("cannot be compiled: its machine code cannot be read: {error}"))?;
    if Engine::detect_precompiled(&code).is_none() {
        return Err(CompileFault::from(
            "cannot be compiled: the program that was started for it is not a compiler (Compiler::ThisProgram is for programs \
             that call plugin::answer_if_asked)"
                .to_owned(),
        ));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt as _,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use sha2::{Digest as _, Sha256};
    use tempfile::TempDir;

    use super::*;

    /// The words for an end of a compiler.
    fn words(status: Option<i32>, said: &str) -> (String, Option<&'static str>) {
        let outcome = Outcome { status: status.map(ExitStatus::from_raw), words: said.to_owned() };
        judge(&outcome, &PluginLimits::default())
            .map_or_else(|fault| (fault.words, fault.limit), |()| ("done".to_owned(), None))
    }

    #[test]
    fn every_end_of_a_compiler_has_words() {
        let exit = |code: i32| Some(code << 8);
        assert_eq!(words(exit(0), "unconfined: an old kernel").0, "done");
        for (status, said, limit, wanted) in [
            (None, "", Some("compile_time"), "takes more than 120s to compile"),
            (Some(libc::SIGXCPU), "", Some("compile_time"), "takes more than 120s to compile"),
            (
                Some(libc::SIGABRT),
                "memory allocation of 77 bytes failed",
                Some("compile_memory"),
                "MiB of memory to compile, and was stopped (limits.compile_memory)",
            ),
            (exit(3), "unexpected end", None, "is damaged or cut short: unexpected end"),
            (exit(101), "thread 'main' panicked", None, "fail (exit code 101); it is damaged, or made to do so"),
            (Some(libc::SIGSEGV), "", None, "made the compiler fail (signal 11)"),
            (Some(libc::SIGKILL), "", None, "killed from outside"),
        ] {
            let (found, hit) = words(status, said);
            assert!(found.contains(wanted) && hit == limit, "{status:?}: {found}");
        }
    }

    /// What a tenant's component came to.
    fn compile(compilers: &Compilers, tenant: &str, component: &str, limits: &PluginLimits) -> CompileFault {
        let digest = Sha256::digest(component).into();
        compilers.compile(&Engine::default(), component.as_bytes(), &digest, tenant, limits).unwrap_err()
    }

    #[test]
    fn a_program_that_is_no_compiler_is_told_apart() {
        for (program, words) in [
            ("/bin/true", "is not a compiler"),
            ("/no/such/program", "cannot start the compiler /no/such/program: No such file"),
        ] {
            let compilers = Compilers::new(Compiler::Program(program.into()));
            let fault = compile(&compilers, "shop", "", &PluginLimits::default());
            assert!(fault.words.contains(words), "{}", fault.words);
        }
    }

    /// A program in place of the compiler, in a folder that must outlive its use.
    fn program(text: &str) -> (TempDir, Compilers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compiler");
        let text = text.replace("FOLDER", &folder.path().display().to_string());
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, Compilers::new(Compiler::Program(path)))
    }

    #[test]
    fn bombs_of_one_tenant_do_not_keep_another_waiting() {
        // A bomb goes on until there is a file.
        let (folder, compilers) = program(
            "read -r word; [ \"$word\" = bomb ] && while [ ! -e FOLDER/enough ]; do /bin/sleep 0.02; done; exit 3",
        );
        let limits = PluginLimits::default();
        let done = AtomicUsize::new(0);
        let (compilers, limits, done) = (&compilers, &limits, &done);
        thread::scope(|scope| {
            for number in 0..5 {
                scope.spawn(move || {
                    compile(compilers, "stranger", &format!("bomb\n{number}"), limits);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            while compilers.seats.waiting() < 3 {
                thread::sleep(Duration::from_millis(5));
            }
            for tenant in ["shop", "bank", "shop"] {
                let fault = compile(compilers, tenant, tenant, limits);
                assert!(fault.words.contains("damaged or cut short"), "{}", fault.words);
            }
            assert_eq!(done.load(Ordering::SeqCst), 0);
            fs::write(folder.path().join("enough"), "").unwrap();
        });
        assert_eq!(done.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn a_bomb_is_compiled_once_and_again_with_other_limits() {
        let (folder, compilers) = program("echo run >>FOLDER/runs; while :; do :; done");
        let mut limits = PluginLimits { compile_time: Duration::from_millis(100), ..PluginLimits::default() };
        let runs = || fs::read_to_string(folder.path().join("runs")).unwrap().lines().count();
        let first = compile(&compilers, "stranger", "bomb", &limits);
        let second = compile(&compilers, "stranger", "bomb", &limits);
        assert!(first.words.starts_with("takes more than 100ms to compile"), "{}", first.words);
        assert!(second.words.starts_with(&first.words) && second.limit == first.limit, "{}", second.words);
        assert!(
            second.words.contains("it is not tried again for 10 min, unless its limits change"),
            "{}",
            second.words
        );
        assert_eq!(runs(), 1);
        compile(&compilers, "stranger", "another", &limits);
        limits.compile_time = Duration::from_millis(101);
        compile(&compilers, "stranger", "bomb", &limits);
        assert_eq!(runs(), 3);
    }

    #[test]
    fn what_may_go_well_the_next_time_is_tried_again() {
        let (folder, compilers) = program("echo run >>FOLDER/runs; exit 4");
        for _ in 0..2 {
            compile(&compilers, "shop", "unlucky", &PluginLimits::default());
        }
        assert_eq!(fs::read_to_string(folder.path().join("runs")).unwrap().lines().count(), 2);
    }
}
