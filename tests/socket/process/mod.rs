//! `leasehold serve` as a process: its flags, its log, its signals, its exit codes.

mod serving;

use std::{path::PathBuf, process::Output};

use http::header;
use tokio::{io::AsyncReadExt, net::TcpListener, process::Command};

use self::serving::{Files, GOOD, Serving};
use crate::harness::{Protocol, Raw, event, post};

const REVIEW: &str = include_str!("../../data/reviews/takeover-early.json");

#[tokio::test]
async fn it_serves_tells_how_it_is_and_ends_on_a_signal_after_answering_what_is_in_flight() {
    let mut serving = Serving::start(&["--shutdown-delay", "0s"]).await;
    serving.until_ready().await;
    let verbose = serving.admin("/readyz?verbose").await;
    let checks = "[+]certificate ok\n[+]listener ok\n[+]policy ok\n[+]shutdown ok\nreadyz check passed\n";
    assert!(verbose.ends_with(checks), "{verbose}");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let response = serving.connect(protocol).await.send(post(REVIEW)).await;
        let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(answer["response"]["allowed"], false, "{answer}");
    }
    let metrics = serving.admin("/metrics").await;
    assert!(
        metrics.contains("leasehold_requests_total{code=\"200\"} 2"),
        "{metrics}"
    );

    let mut in_flight = Raw::connect(serving.webhook, serving.files.pki.client(Protocol::Http1)).await;
    in_flight.begin_review(REVIEW.len()).await;
    serving.signal("TERM").await;
    serving.line("draining").await;
    in_flight.write(REVIEW).await;
    let head = in_flight.read_head().await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("connection: close"),
        "{head}"
    );
    assert!(in_flight.rest().await.contains("\"allowed\":false"));
    assert_eq!(serving.exit().await.code(), Some(0));
    serving.line("stopped: all").await;
}

#[tokio::test]
async fn a_first_signal_makes_it_unready_and_still_serving_and_a_second_stops_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let mut serving = Serving::start(&["--shutdown-delay", "1h"]).await;
        serving.until_ready().await;
        serving.signal(first).await;
        serving.line("shutting down").await;
        let readyz = serving.admin("/readyz").await;
        assert!(readyz.starts_with("HTTP/1.1 503"), "{readyz}");
        assert!(readyz.contains("[-]shutdown failed: shutting down\n"), "{readyz}");
        let response = serving.connect(Protocol::Http1).await.send(post(REVIEW)).await;
        assert_eq!(
            (
                response.status().as_u16(),
                response.headers()[header::CONNECTION].as_bytes()
            ),
            (200, &b"close"[..])
        );
        serving.signal(second).await;
        assert_eq!(serving.exit().await.code(), Some(1));
        serving.line("stopped by a second signal").await;
    }
}

#[tokio::test]
async fn a_second_signal_during_the_drain_cuts_off_what_is_in_flight() {
    let mut serving = Serving::start(&["--shutdown-delay", "0s", "--shutdown-grace-period", "1h"]).await;
    let mut in_flight = Raw::connect(serving.webhook, serving.files.pki.client(Protocol::Http1)).await;
    in_flight.begin_review(REVIEW.len()).await;
    serving.signal("TERM").await;
    serving.line("draining").await;
    serving.signal("TERM").await;
    assert_eq!(serving.exit().await.code(), Some(1));
    assert_eq!(in_flight.rest().await, "");
}

#[tokio::test]
async fn what_outlives_the_grace_period_makes_the_exit_code_1() {
    let mut serving = Serving::start(&["--shutdown-delay", "0s", "--shutdown-grace-period", "10ms"]).await;
    let mut in_flight = Raw::connect(serving.webhook, serving.files.pki.client(Protocol::Http1)).await;
    in_flight.begin_review(REVIEW.len()).await;
    serving.signal("TERM").await;
    assert_eq!(serving.exit().await.code(), Some(1));
    serving.line("stopped: the grace period is over").await;
}

#[tokio::test]
async fn with_the_audit_log_on_standard_output_nothing_else_is_there() {
    let serving = Serving::start(&["--shutdown-delay", "0s", "--audit-log", "-"]).await;
    let mut client = serving.connect(Protocol::Http2).await;
    for body in [REVIEW, "{", REVIEW] {
        client.send(post(body)).await;
    }
    let output = audited(serving).await;
    let records: Vec<serde_json::Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 2, "{output}");
    assert!(output.contains("takeover-before-expiry"), "{output}");
}

/// What a process that is told to end has written to its audit log on standard output.
async fn audited(mut serving: Serving) -> String {
    let mut stdout = serving.child.stdout.take().unwrap();
    serving.signal("TERM").await;
    let mut output = String::new();
    // A pipe that nobody reads would keep it from its end.
    let reading = event("the end of the output", stdout.read_to_string(&mut output));
    let (read, status) = tokio::join!(reading, serving.exit());
    read.unwrap();
    assert_eq!(status.code(), Some(0));
    output
}

/// A holder, a user and a field manager whose names would be a record of their own, a terminal's command, or text from
/// right to left.
#[tokio::test]
async fn names_forge_no_audit_record_and_crowd_none_out() {
    const FORGED: &str = "b\n{\"record\":\"breakGlass\"}\r\u{1b}[2J\u{9b}31m\u{2028}\u{202e}\u{7f}";
    let serving = Serving::start(&["--shutdown-delay", "0s", "--audit-log", "-"]).await;
    let mut client = serving.connect(Protocol::Http2).await;
    let mut review: serde_json::Value = serde_json::from_str(REVIEW).unwrap();
    review["request"]["object"]["spec"]["holderIdentity"] = FORGED.into();
    review["request"]["userInfo"]["username"] = FORGED.into();
    review["request"]["options"]["fieldManager"] = FORGED.into();
    client.send(post(review.to_string())).await;
    // Sixty-four of a megabyte: sixteen times what may wait.
    review["request"]["object"]["spec"]["holderIdentity"] = "b".repeat(1 << 20).into();
    let longest = review.to_string();
    for _ in 0..64 {
        client.send(post(longest.clone())).await;
    }
    let output = audited(serving).await;
    let records: Vec<serde_json::Value> = output
        .split_terminator('\n')
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 65);
    for (field, record) in [("newHolder", 0), ("user", 64), ("fieldManager", 64)] {
        assert_eq!(records[record][field], FORGED);
    }
    let shown =
        |character: char| character == '\n' || ('\u{20}'..='\u{7e}').contains(&character) || character == '…';
    assert!(output.chars().all(shown), "something is not shown as it is");
    assert!(output.len() < 65 * 4096, "{} bytes", output.len());
}

#[tokio::test]
async fn without_its_policy_it_is_alive_and_not_ready_says_why_and_stops_on_a_signal() {
    // A port where nobody listens: taken, and given back.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'http://{nobody}'}}}}]}}"
    );
    let from_config_map = [
        "--policy-configmap",
        "leasehold-system/leasehold-policy",
        "--kubeconfig",
        "kubeconfig",
    ];
    let flags = [
        &GOOD[..4],
        &GOOD[6..],
        &from_config_map,
        &["--shutdown-delay", "0s"],
    ]
    .concat();
    let mut serving = Serving::start_with(&flags, &[("kubeconfig", &kubeconfig)]).await;
    let told = async {
        loop {
            let report = serving.admin("/readyz").await;
            if report.contains("the API server cannot be asked") {
                return report;
            }
        }
    };
    let report = event("the reason", told).await;
    assert!(report.starts_with("HTTP/1.1 503"), "{report}");
    let reason =
        "[-]policy failed: no policy was loaded yet from ConfigMap leasehold-system/leasehold-policy";
    assert!(report.contains(reason), "{report}");
    assert!(
        report.contains("[-]listener failed: not done yet"),
        "nothing is judged: {report}"
    );
    assert!(serving.admin("/livez").await.starts_with("HTTP/1.1 200"));
    serving.signal("TERM").await;
    assert_eq!(serving.exit().await.code(), Some(0));
}

/// Runs to the end, which must come by itself.
async fn run(mut command: Command) -> Output {
    event("the end of the process", command.output()).await.unwrap()
}

#[tokio::test]
async fn each_mistake_is_told_in_one_line_that_names_the_flag_with_exit_code_2() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let unreadable: PathBuf = files.path().to_owned();
    for (flag, value, told) in [
        (
            "--tls-cert-file",
            "absent.crt",
            "--tls-cert-file absent.crt: cannot be read: No such file",
        ),
        (
            "--tls-cert-file",
            unreadable.to_str().unwrap(),
            "cannot be read: Is a directory",
        ),
        (
            "--tls-cert-file",
            "empty",
            "--tls-cert-file empty: holds no certificate",
        ),
        (
            "--tls-private-key-file",
            "absent.key",
            "--tls-private-key-file absent.key: cannot be read: No such file",
        ),
        (
            "--tls-private-key-file",
            "tls.crt",
            "--tls-private-key-file tls.crt: holds no private key",
        ),
        (
            "--tls-private-key-file",
            "other.key",
            "--tls-private-key-file other.key: is not the key of the certificate in --tls-cert-file tls.crt",
        ),
        (
            "--client-ca-file",
            "absent.crt",
            "--client-ca-file absent.crt: cannot be read: No such file",
        ),
        (
            "--client-ca-file",
            "empty",
            "--client-ca-file empty: holds no certificate",
        ),
        (
            "--policy-file",
            "absent.yaml",
            "--policy-file absent.yaml: cannot be read: No such file",
        ),
        (
            "--policy-file",
            "bad-policy.yaml",
            "--policy-file bad-policy.yaml: line 2",
        ),
        (
            "--kubeconfig",
            "absent.yaml",
            "--kubeconfig absent.yaml: cannot be read: No such file or directory (os error 2); give",
        ),
        (
            "--kubeconfig",
            "bad-kubeconfig.yaml",
            "--kubeconfig bad-kubeconfig.yaml: is not a kubeconfig in YAML: line 4, column 5; give",
        ),
        ("--secure-port", &taken, "in use on 127.0.0.1"),
        ("--admin-port", &taken, "in use on 127.0.0.1"),
        // TEST-NET-1 (RFC 5737): no machine has it.
        (
            "--bind-address",
            "192.0.2.1",
            "--bind-address 192.0.2.1: not an address of this machine",
        ),
    ] {
        let mut flags = GOOD.to_vec();
        match flags.iter().position(|have| *have == flag) {
            Some(at) => flags[at + 1] = value,
            None => flags.extend([flag, value]),
        }
        if flag == "--kubeconfig" {
            // Files need none.
            let at = flags.iter().position(|have| *have == "--policy-file").unwrap();
            flags.splice(at..at + 2, ["--policy-configmap", "system/policy"]);
        }
        let output = run(files.command(&flags)).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flag} {value}: {stderr}");
        assert!(
            stderr.starts_with("leasehold: --") && stderr.contains(flag),
            "{flag} {value}: {stderr}"
        );
        assert!(stderr.contains(told), "{flag} {value}: {stderr}");
        assert!(!stderr.contains("c2Vj") && !stderr.contains("hidden"), "{stderr}");
        assert!(
            stderr.contains("; ") || stderr.contains("expected one of"),
            "what to do: {stderr}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn flags_that_do_not_fit_together_are_refused_with_exit_code_2() {
    let files = Files::new();
    for (flags, told) in [
        (&GOOD[..4], "--policy-file"),
        (&GOOD[2..], "--tls-cert-file"),
        (
            &GOOD[4..],
            "<--tls-cert-file <FILE>|--tls-secret <NAMESPACE/NAME>>",
        ),
        (
            &[&GOOD[..], &["--policy-configmap", "a/b"]].concat(),
            "--policy-configmap",
        ),
        (&[&GOOD[..], &["--kubeconfig", "k"]].concat(), "--kubeconfig"),
        (
            &[&GOOD[..], &["--shutdown-delay", "5"]].concat(),
            "500ms, 5s or 1m30s",
        ),
        (&[&GOOD[..], &["--log-level", "a=b=c"]].concat(), "--log-level"),
        (
            &[&GOOD[..], &["--log-level", "loud"]].concat(),
            "\"loud\" is no level; give off, error, warn, info, debug or trace",
        ),
    ] {
        let output = run(files.command(flags)).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    let mut command = files.command(&GOOD);
    command.env("RUST_LOG", "loud");
    let output = run(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("leasehold: the environment variable RUST_LOG: \"loud\" is no level; give off"),
        "{stderr}"
    );
}
