//! The `inosec` command.

use std::process::ExitCode;

/// Batches are built on one thread and dropped on another, which glibc's arenas keep from reuse.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    inosec::cli::main()
}
