//! Prometheus's own judge.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use crate::repository;

static PROMTOOL: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(path) = std::env::var_os("PROMTOOL").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let output = Command::new(repository("tests/promtool/build.sh"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "tests/promtool/build.sh failed ({}): it needs Go and a Go module proxy; or set PROMTOOL to a promtool",
        output.status
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().last().expect("build.sh prints a path").into()
});

/// Runs promtool with this on its standard input.
pub(crate) fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, input: &str) -> Output {
    let mut child = Command::new(&*PROMTOOL)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads all of it before it says a word.
    let sent = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    sent.unwrap();
    output
}

/// What it said, on both streams.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
