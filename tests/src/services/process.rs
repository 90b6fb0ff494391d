//! A child process with its log: started, signalled, waited for, and never left behind.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::wait::{self, Look};

/// How many of the last log lines go into a failure's message.
const TAIL_LINES: usize = 30;

/// How long a process may take to end once it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A running or ended child. It is killed when this value goes away and when the test process ends, however it ends.
#[derive(Debug)]
pub struct Process {
    /// For messages.
    name: String,
    /// The child.
    child: Child,
    /// Its standard output and error.
    log: PathBuf,
    /// Set once it ended.
    ended: Option<ExitStatus>,
}

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Terminate,
    /// Ctrl-C.
    Interrupt,
    /// Read the configuration again.
    Hangup,
    /// End now, without a word.
    Kill,
    /// Freeze.
    Stop,
    /// Thaw.
    Continue,
}

impl Signal {
    /// Its number.
    fn number(self) -> i32 {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
            Self::Hangup => libc::SIGHUP,
            Self::Kill => libc::SIGKILL,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Process {
    /// Starts a command without input; its standard output and error are appended to `log`.
    pub fn start(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::start_with_input(name, command, log, Stdio::null())
    }

    /// As [`Process::start`], with an input.
    pub fn start_with_input(name: &str, mut command: Command, log: &Path, input: Stdio) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot open the log {}", log.display()))?;
        command.stdin(input).stdout(output.try_clone().context("a second handle of a log")?).stderr(output);
        // A group of its own, so that Ctrl-C at the desk reaches the tests and not each server.
        command.process_group(0);
        let program = PathBuf::from(command.get_program());
        let child = spawn(command).with_context(|| format!("{name}: cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, where it was piped; can be taken once.
    pub fn take_input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of its log, for messages, with the path of the whole.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
        format!("--- {}, the last lines of {} ---\n{tail}\n---", self.name, self.log.display())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<Ended>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("{}: cannot ask for its state", self.name))?;
        }
        Ok(self.ended.map(|status| match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        }))
    }

    /// Fails, with the end of the log, if it has ended.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        let ended = self.ended()?;
        ensure!(ended.is_none(), "{} ended by itself: {ended:?}\n{}", self.name, self.log_tail());
        Ok(())
    }

    /// Waits until it ends.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<Ended> {
        let what = format!("{} to end", self.name);
        let ended = wait::until(&what, limit, || {
            Ok(self.ended()?.map_or_else(|| Look::NotYet("it still runs".to_owned()), Look::Done))
        });
        ended.with_context(|| self.log_tail())
    }

    /// Waits until its output contains a text.
    pub fn wait_for_text(&mut self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("{} to say {text:?}", self.name);
        let said = wait::until(&what, limit, || {
            if self.log().contains(text) {
                return Ok(Look::Done(()));
            }
            self.ensure_running()?;
            Ok(Look::NotYet("it has not".to_owned()))
        });
        said.with_context(|| self.log_tail())
    }

    /// Sends a signal; nothing happens where it has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.ended()?.is_none() {
            send(self.id(), signal.number()).with_context(|| format!("{}: cannot send {signal:?}", self.name))?;
        }
        Ok(())
    }

    /// Asks it to end, and waits; kills it where it does not.
    pub fn stop(&mut self) -> anyhow::Result<Ended> {
        self.signal(Signal::Continue)?;
        self.signal(Signal::Terminate)?;
        let ended = self.wait(STOP_LIMIT);
        if ended.is_err() {
            self.kill()?;
        }
        ended
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<Ended> {
        self.signal(Signal::Kill)?;
        self.wait(STOP_LIMIT)
    }
}

/// The most memory that a process that still runs has ever had resident, without pages of files such as its own program, which the
/// system takes back when it needs them; `VmHWM` and `RssFile` of /proc, so on Linux.
#[must_use]
pub fn peak_memory(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some(bytes("VmHWM:")?.saturating_sub(bytes("RssFile:")?))
}

/// What a process has resident now, ours; on Linux.
pub fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc")?;
    Ok(line.split_whitespace().nth(1).context("no number behind VmRSS")?.parse::<u64>()? * 1024)
}

/// CPU time of this process so far.
pub fn cpu_seconds() -> anyhow::Result<f64> {
    ticks(11)
}

/// CPU time of all children that have ended.
pub fn children_cpu_seconds() -> anyhow::Result<f64> {
    ticks(13)
}

/// Two fields of /proc/self/stat behind the name: time as a user and in the system, in ticks of which Linux has had 100 a second
/// for user programs ever since.
fn ticks(at: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(at).take(2).map(|ticks| ticks.parse().unwrap_or(0.0));
    Ok(ticks.sum::<f64>() / 100.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        // What has ended already cannot be killed, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child that we have not waited for yet, so its id is still its own.
#[expect(unsafe_code, reason = "std can only send SIGKILL")]
fn send(id: u32, signal: i32) -> anyhow::Result<()> {
    let id = i32::try_from(id).context("a process id")?;
    // SAFETY: kill takes two numbers and touches no memory.
    let answer = unsafe { libc::kill(id, signal) };
    ensure!(answer == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

/// What the spawning thread gets: a command, and where the child goes.
type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts a child that the kernel kills when the test process ends.
///
/// "Parent" means the thread that started the child, and a test's thread ends with its test: so one thread, which ends
/// with the process, starts them all.
fn spawn(command: Command) -> anyhow::Result<Child> {
    static SPAWNER: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::sync_channel::<Order>(16);
        thread::spawn(move || {
            for (command, answer) in inbox {
                // Whoever asked waits for the answer.
                let _ = answer.send(spawn_here(command));
            }
        });
        orders
    });
    let (sender, answer) = mpsc::sync_channel(1);
    spawner.send((command, sender)).ok().context("the thread that starts children is gone")?;
    Ok(answer.recv().context("the thread that starts children is gone")??)
}

/// Starts a child of this thread.
#[expect(unsafe_code, reason = "the request to be killed with the parent is made between fork and exec")]
fn spawn_here(mut command: Command) -> std::io::Result<Child> {
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::folder::TestFolder;

    #[test]
    fn a_child_is_heard_signalled_and_waited_for() -> anyhow::Result<()> {
        let folder = TestFolder::new("process")?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; trap 'exit 7' TERM; while :; do sleep 0.05; done"]);
        let mut child = Process::start("shell", command, &folder.path().join("log"))?;
        child.wait_for_text("ready", Duration::from_secs(10))?;
        child.ensure_running()?;
        child.signal(Signal::Terminate)?;
        assert_eq!(child.wait(Duration::from_secs(10))?, Ended::Code(7));
        let error = child.ensure_running().unwrap_err();
        assert!(format!("{error:?}").contains("ready"), "the log's end is part of the message: {error:?}");
        Ok(())
    }

    #[test]
    fn a_child_ends_with_its_value() -> anyhow::Result<()> {
        let folder = TestFolder::new("process")?;
        let mut command = Command::new("sleep");
        command.arg("600");
        let child = Process::start("sleep", command, &folder.path().join("log"))?;
        let place = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(place.exists());
        drop(child);
        assert!(!place.exists());
        Ok(())
    }
}
