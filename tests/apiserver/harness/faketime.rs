//! libfaketime, by which a process that asks libc for the time is given another.

use std::path::PathBuf;

use anyhow::ensure;

/// Its library for programs with threads, where Debian's package has it.
pub(crate) fn library() -> PathBuf {
    let architecture = std::env::consts::ARCH;
    PathBuf::from(format!(
        "/usr/lib/{architecture}-linux-gnu/faketime/libfaketimeMT.so.1"
    ))
}

/// Fails, and says what to do, where it is not installed.
pub(crate) fn ensure_installed() -> anyhow::Result<()> {
    let library = library();
    ensure!(
        library.is_file(),
        "there is no {}: install the package faketime, by which clocks are set wrong",
        library.display()
    );
    Ok(())
}
