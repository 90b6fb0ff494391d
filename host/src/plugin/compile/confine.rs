//! What the process that compiles may use, by the kernel's word.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::FromRawFd as _,
    os::unix::process::parent_id,
    process,
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// How much it may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of memory that it may write to, besides what it has at the start.
    pub(super) memory: u64,
    /// Seconds of computing, over all threads.
    pub(super) cpu_seconds: u64,
    /// Bytes of what it writes.
    pub(super) file: u64,
}

/// What the C library calls a kind of limit.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
/// What the C library calls a kind of limit.
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Lower than what runs, and not so low that a busy machine leaves it nothing of its time.
const NICENESS: libc::c_int = 5;
/// Descriptors that it may have: the three that it was started with, and a few that libraries open.
const DESCRIPTORS_MAX: u64 = 16;

/// A file without a name, in memory, which is not handed to other programs by accident.
#[expect(unsafe_code, reason = "the standard library has no files in memory")]
pub(super) fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string, and the kernel copies it.
    let descriptor = unsafe { libc::memfd_create(c"plugin".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Sets all limits, and the end together with the parent.
pub(super) fn set_limits(parent: u64, limits: Limits) -> io::Result<()> {
    close_others();
    set(libc::PR_SET_PDEATHSIG, libc::c_ulong::try_from(libc::SIGKILL).unwrap_or_default())?;
    // It may have died before it was asked for.
    if u64::from(parent_id()) != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    give_way();
    let data = data_bytes().saturating_add(limits.memory);
    // No core file, and nobody of this user looks into it.
    set(libc::PR_SET_DUMPABLE, 0)?;
    limit(libc::RLIMIT_CORE, 0, 0)?;
    // The first second above it is a signal that the parent understands, the next one the end.
    limit(libc::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds.saturating_add(1))?;
    limit(libc::RLIMIT_FSIZE, limits.file, limits.file)?;
    limit(libc::RLIMIT_NOFILE, DESCRIPTORS_MAX, DESCRIPTORS_MAX)?;
    limit(libc::RLIMIT_DATA, data, data)
}

/// Forbids everything but computing, memory, threads, and the files that are open: no file, no network, no other process, no
/// new executable memory. What is forbidden fails, so that libraries that only look around go on.
pub(super) fn cut_off() -> Result<(), String> {
    let words =
        |error: &dyn std::fmt::Display| format!("the kernel's filter of system calls (seccomp) is not there: {error}");
    for filter in [without_clone3(), only_computing()] {
        let filter = filter.map_err(|error| words(&error))?;
        seccompiler::apply_filter(&filter).map_err(|error| words(&error))?;
    }
    Ok(())
}

/// Bytes that this process may write to now.
fn data_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(5).and_then(|pages| pages.trim().parse().ok()).unwrap_or(0);
    pages.saturating_mul(page_bytes())
}

/// Bytes of a page of memory.
#[expect(unsafe_code, reason = "the standard library does not tell the size of a page")]
fn page_bytes() -> u64 {
    // SAFETY: it only answers a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Closes what the parent had open and did not mark as its own.
#[expect(unsafe_code, reason = "the standard library does not close descriptors that nobody owns")]
fn close_others() {
    // SAFETY: nothing was opened yet in this process that anyone owns; the call has no memory.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if closed != 0 {
        for descriptor in 3..4096 {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// Lets whoever works go first: plugins of others run while one is compiled.
#[expect(unsafe_code, reason = "the standard library does not have priorities")]
fn give_way() {
    // SAFETY: it takes numbers. Where it fails, this process is as important as others.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// One setting of this process.
#[expect(unsafe_code, reason = "the standard library does not have these settings")]
fn set(what: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: both settings take one number.
    let answer = unsafe { libc::prctl(what, value, 0_u64, 0_u64, 0_u64) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One limit of this process, for good.
#[expect(unsafe_code, reason = "the standard library does not have limits")]
fn limit(what: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes into a structure that lives.
    if unsafe { libc::getrlimit(what, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // What is less already stays.
    let hard = hard.min(limit.rlim_max);
    limit = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
    // SAFETY: the kernel reads a structure that lives.
    if unsafe { libc::setrlimit(what, &raw const limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers that the newer way to start threads is not there: its arguments lie in memory, where no filter can look. The C
/// library then takes the older one.
fn without_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))
}

/// The system calls that a compiler needs.
fn only_computing() -> Result<BpfProgram, seccompiler::BackendError> {
    let free = [
        // Reading and writing what is open.
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_lseek,
        libc::SYS_fstat,
        libc::SYS_close,
        // Memory.
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        // Threads, signals, time, chance. The first of them is answered by the other filter.
        libc::SYS_clone3,
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let with = [
        (libc::SYS_mmap, 2, SeccompCmpOp::MaskedEq(executable), 0),
        (libc::SYS_mprotect, 2, SeccompCmpOp::MaskedEq(executable), 0),
        // Threads of this process, no processes.
        (libc::SYS_clone, 0, SeccompCmpOp::MaskedEq(thread), thread),
        // How a process ends itself.
        (libc::SYS_tgkill, 0, SeccompCmpOp::Eq, process::id().into()),
        // Limits may be asked for, not set.
        (libc::SYS_prlimit64, 2, SeccompCmpOp::Eq, 0),
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = free.into_iter().map(|call| (call, Vec::new())).collect();
    for (call, argument, comparison, value) in with {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, comparison, value)?;
        rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
    }
    filter(rules, SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow)
}

/// A filter for this machine.
fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, action, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpListener, process::Command, thread};

    use super::*;

    /// What a call came to.
    fn denied<T>(result: io::Result<T>) -> bool {
        result.err().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn who_is_cut_off_computes_and_reaches_nothing() {
        // The filter is of one thread, and of those that it starts.
        let found = thread::spawn(|| {
            cut_off().unwrap();
            let inner = thread::Builder::new().spawn(|| fs::read("/proc/self/status").is_err()).unwrap();
            [
                denied(fs::read("/etc/hostname")),
                denied(fs::write("/tmp/never-written", "")),
                denied(TcpListener::bind("127.0.0.1:0")),
                Command::new("/bin/true").status().is_err(),
                memory_file().is_err(),
                inner.join().unwrap(),
                vec![1_u8; 10 << 20].iter().map(|byte| u64::from(*byte)).sum::<u64>() == 10 << 20,
            ]
        });
        assert_eq!(found.join().unwrap(), [true; 7]);
        assert!(fs::read("/proc/self/status").is_ok(), "other threads are as before");
    }

    #[test]
    fn the_memory_that_is_there_already_is_known() {
        assert!(data_bytes() > 1 << 16 && page_bytes() >= 4096);
    }
}
