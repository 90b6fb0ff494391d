//! The thin binary: everything is in the library.

use std::process::ExitCode;

/// Encoding and decoding allocate large buffers side by side; mimalloc gives them back sooner and costs less. Built without huge pages
/// (`no_thp`): with them the few KiB of each of many pipelines and threads take 2 MiB, four fifths of them unused.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Parses the arguments and runs, unless it was started by itself to compile a plugin.
fn main() -> ExitCode {
    fs_data_sink::plugin::answer_if_asked().unwrap_or_else(fs_data_sink::cli::main)
}
