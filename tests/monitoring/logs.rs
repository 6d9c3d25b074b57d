//! The log: its format, its level while the process runs, and what is never in it.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

use crate::{
    harness::{Pki, event, rest},
    serving::{self, Serving},
};

const CHANGED: &str = "log level changed";
const HANDSHAKE_FAILED: &str = "the TLS handshake failed";

/// Provokes a line at level debug: somebody who connects to the webhook's port and speaks no TLS, for that time.
async fn speak_no_tls(serving: &Serving, time: u32) {
    let mut stream = TcpStream::connect(serving.webhook).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let _ = event("the end of the connection", rest(&mut stream)).await;
    // Counted once it is logged.
    let counted = format!("leasehold_handshake_failures_total{{reason=\"protocol\"}} {time}\n");
    let told = async { while !serving.metrics("*/*").await.contains(&counted) {} };
    event("the count of the handshake", told).await;
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["message"].as_str()).collect()
}

#[tokio::test]
async fn its_level_is_changed_while_it_runs() {
    let mut serving = Serving::start().await;
    assert!(serving.get("/loglevel", "*/*").await.ends_with("\r\n\r\ninfo\n"));
    speak_no_tls(&serving, 1).await;
    let answer = serving.put_log_level("127.0.0.1", "info,leasehold=debug\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let lines = serving.log_until(CHANGED).await;
    assert!(!messages(&lines).contains(&HANDSHAKE_FAILED), "{lines:?}");
    let change = lines.last().unwrap();
    assert_eq!(
        (&change["before"], &change["level"]),
        (&Value::from("info"), &Value::from("WARN"))
    );

    speak_no_tls(&serving, 2).await;
    let lines = serving.log_until(HANDSHAKE_FAILED).await;
    assert_eq!(lines.last().unwrap()["level"], "DEBUG");

    let answer = serving.put_log_level("127.0.0.1", "warn").await;
    assert!(answer.ends_with("\r\n\r\nwarn\n"), "{answer}");
    serving.log_until(CHANGED).await;
    speak_no_tls(&serving, 3).await;
    serving.put_log_level("127.0.0.1", "info").await;
    let lines = serving.log_until(CHANGED).await;
    assert_eq!(messages(&lines), [CHANGED], "{lines:?}");
}

#[tokio::test]
async fn a_level_that_is_none_or_comes_from_afar_changes_nothing() {
    let serving = Serving::start().await;
    let long = "debug,".repeat(200);
    for (from, directives, code, told) in [
        (
            "127.0.0.1",
            "a=b=c",
            400,
            "give off, error, warn, info, debug or trace",
        ),
        (
            "127.0.0.1",
            "loud",
            400,
            "\"loud\" is no level; give off, error, warn, info, debug or trace",
        ),
        ("127.0.0.1", " \n", 400, "nothing is given; give off, error"),
        ("127.0.0.1", long.as_str(), 413, "give a level such as debug"),
        // As a service mesh's proxy would pass on what came from outside.
        ("127.0.0.6", "debug", 403, "kubectl port-forward"),
    ] {
        let answer = serving.put_log_level(from, directives).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.0 {code} ")),
            "{directives}: {answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let error: Value = serde_json::from_str(body).unwrap();
        assert!(error["error"].as_str().unwrap().contains(told), "{body}");
    }
    assert!(serving.get("/loglevel", "*/*").await.ends_with("\r\n\r\ninfo\n"));
}

#[tokio::test]
async fn a_change_is_told_even_by_a_level_that_tells_no_more() {
    let mut serving = Serving::start().await;
    for (before, now) in [("info", "off"), ("off", "info"), ("info", "hyper=trace")] {
        serving.put_log_level("127.0.0.1", now).await;
        let lines = serving.log_until(CHANGED).await;
        let change = lines.last().unwrap();
        assert_eq!((&change["before"], &change["now"]), (&before.into(), &now.into()));
    }
}

#[tokio::test]
async fn nothing_of_a_body_is_logged_even_at_level_trace() {
    const MARKER: &str = "do-not-log-me";
    let mut serving = Serving::start().await;
    serving.put_log_level("127.0.0.1", "trace").await;
    serving.log_until(CHANGED).await;

    let mut review: Value =
        serde_json::from_str(include_str!("../data/reviews/takeover-early.json")).unwrap();
    for object in ["object", "oldObject"] {
        let metadata = &mut review["request"][object]["metadata"];
        metadata["labels"]["secret"] = MARKER.into();
        metadata["annotations"]["secret"] = MARKER.into();
        metadata["annotations"]["leasehold.dev/break-glass"] = MARKER.into();
    }
    review["request"]["userInfo"]["extra"]["secret"] = vec![MARKER].into();
    assert_eq!(serving.send(review.to_string()).await, 200);
    let mut wrong = review.clone();
    wrong["request"]["object"]["spec"]["leaseDurationSeconds"] = MARKER.into();
    assert_eq!(serving.send(wrong.to_string()).await, 400);
    assert_eq!(serving.send(format!("{MARKER} is no review")).await, 400);

    serving.put_log_level("127.0.0.1", "info").await;
    let lines = serving.log_until(CHANGED).await;
    let from = |target: &str| {
        lines
            .iter()
            .any(|line| line["target"].as_str().is_some_and(|it| it.starts_with(target)))
    };
    assert!(
        from("hyper") || from("rustls") || from("h2"),
        "libraries are heard, too: {lines:?}"
    );
    for line in &lines {
        assert!(!line.to_string().contains(MARKER), "{line}");
    }
    let traced = lines
        .iter()
        .find(|line| line["level"] == "TRACE" && !line["target"].as_str().unwrap().starts_with("leasehold"));
    assert_eq!(traced, None, "what a library traces is what passes through it");
}

/// The line with which a `leasehold serve` with these flags more says that it listens, on a terminal or not. The process
/// ends afterwards: it is killed, or its terminal is gone.
async fn says_that_it_listens(more_flags: &str, rust_log: Option<&str>, on_terminal: bool) -> String {
    let folder = serving::files(&Pki::new());
    let flags = serving::FLAGS.join(" ");
    let serve = format!("exec {} {flags} {more_flags}", env!("CARGO_BIN_EXE_leasehold"));
    let mut command = if on_terminal {
        // Of util-linux: runs a command on a terminal of its own.
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--command", &serve, "/dev/null"]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{serve} 2>&1")]);
        command
    };
    let mut child = command
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .envs(rust_log.map(|directives| ("RUST_LOG", directives)))
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = event("the log", lines.next_line()).await.unwrap();
        let line = line.expect("the log goes on");
        if line.contains("listening") {
            return line;
        }
    }
}

#[tokio::test]
async fn it_is_json_but_on_a_terminal_unless_told_otherwise() {
    for (format, on_terminal, json) in [
        ("", false, true),
        ("", true, false),
        ("--log-format text", false, false),
        ("--log-format json", true, true),
    ] {
        let line = says_that_it_listens(format, None, on_terminal).await;
        let what = format!("{format:?} on a terminal: {on_terminal}: {line}");
        let parsed: Result<Value, _> = serde_json::from_str(&line);
        assert_eq!(parsed.is_ok(), json, "{what}");
        // Colours are for terminals.
        assert_eq!(line.contains('\u{1b}'), on_terminal && !json, "{what}");
        if let Ok(line) = parsed {
            for field in [
                "timestamp",
                "level",
                "message",
                "target",
                "webhook",
                "admin",
                "version",
            ] {
                assert!(line[field].is_string(), "{field} is not there: {line}");
            }
        }
    }
}

#[tokio::test]
async fn the_flag_goes_before_what_is_said_to_every_program() {
    for (flag, rust_log) in [
        ("--log-level info", "off"),
        ("--log-level info", "loud"),
        ("", "info"),
    ] {
        says_that_it_listens(flag, Some(rust_log), false).await;
    }
}
