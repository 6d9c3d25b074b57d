//! `leasehold demo` as a process: how it ends when it is told to.

#![allow(
    clippy::unwrap_used,
    reason = "test helpers say what they expect by unwrapping it"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command
        .arg("demo")
        .env_remove("KUBEBUILDER_ASSETS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

fn read_until(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains(part)),
        "{part:?} never came"
    );
}

#[test]
fn a_signal_ends_it_with_128_and_the_signals_number() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut child = demo().stderr(Stdio::null()).spawn().unwrap();
        read_until(&mut child, "Act 1");
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code), "SIG{name}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = demo().stderr(Stdio::piped()).spawn().unwrap();
    read_until(&mut child, "Act 1");
    drop(child.stdout.take());
    let mut complaint = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaint)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""));
}

#[test]
fn an_interrupted_start_of_the_control_plane_leaves_no_process_and_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (assets, temporary) = (folder.path().join("assets"), folder.path().join("tmp"));
    fs::create_dir(&assets).unwrap();
    fs::create_dir(&temporary).unwrap();
    let started = ["etcd", "kube-apiserver"].map(|name| write_sleeper(&assets, name));

    let mut command = demo();
    command
        .arg("--assets")
        .arg(&assets)
        .env("TMPDIR", &temporary)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let processes = started.map(|file| wait_for(&file));
    assert_eq!(
        fs::read_dir(&temporary).unwrap().count(),
        1,
        "the folder of the running demo"
    );
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for process in processes {
        assert!(
            !Path::new("/proc").join(process.trim()).exists(),
            "{process} lives"
        );
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn missing_programs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write_sleeper(folder.path(), "etcd");
    let output = demo()
        .env("KUBEBUILDER_ASSETS", folder.path())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.starts_with("leasehold: no kube-apiserver in "),
        "{complaint}"
    );
}

/// A program that never ends; the answer is the file that it writes its process id to.
fn write_sleeper(folder: &Path, name: &str) -> PathBuf {
    let (program, started) = (folder.join(name), folder.join(format!("{name}.pid")));
    let (new, done) = (folder.join(format!("{name}.new")), started.display().to_string());
    let script = format!(
        "#!/bin/sh\necho $$ >'{new}' && mv '{new}' '{done}'\nexec sleep 600\n",
        new = new.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    started
}

fn wait_for(file: &Path) -> String {
    loop {
        if let Ok(content) = fs::read_to_string(file) {
            return content;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
