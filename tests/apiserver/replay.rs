//! `leasehold replay` on what a real API server logs of real electors, at each level, and in each envelope.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test,
    attacks::{LEASE, held},
    electors::{elector_at, renewals, sees_leader, started_leading},
    harness::{
        assets::{Assets, repository},
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        world::World,
    },
    test,
};

/// What the API server is to log: the policy that `docs/replay.md` recommends.
fn audit_policy() -> anyhow::Result<String> {
    let document = std::fs::read_to_string(repository("docs/replay.md"))?;
    let policy = document
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    Ok(policy.context("docs/replay.md has no policy")?.to_owned())
}

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Recorded,
        "replay::tells_who_led_when_from_a_real_audit_log",
        tells_who_led_when,
    )]
}

async fn replay(arguments: &[&str], files: &[&Path]) -> anyhow::Result<Output> {
    let output = Command::new(Assets::leasehold())
        .arg("replay")
        .args(arguments)
        .args(files)
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok(output)
}

/// What it says of the lease, from these files.
async fn report(arguments: &[&str], files: &[&Path], code: i32) -> anyhow::Result<Value> {
    let arguments = [&["--output", "json", "--namespace", "replay"], arguments].concat();
    let output = replay(&arguments, files).await?;
    ensure!(
        output.status.code() == Some(code),
        "{:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let replayed: Value = serde_json::from_slice(&output.stdout)?;
    let [lease] = replayed["leases"].as_array().context("no leases")?.as_slice() else {
        anyhow::bail!("one lease, not {}", replayed["leases"]);
    };
    Ok(lease.clone())
}

/// Holder and end of each term.
fn terms(lease: &Value) -> Vec<(String, String)> {
    let terms = lease["terms"].as_array().into_iter().flatten();
    terms
        .map(|term| (text(term, "/holder").to_owned(), text(term, "/end").to_owned()))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(holder, end): &(&str, &str)| ((*holder).to_owned(), (*end).to_owned());
    expected.iter().map(owned).collect()
}

async fn tells_who_led_when(world: &'static World) -> anyhow::Result<()> {
    let policy = world.folder().join("replay-audit-policy.yaml");
    std::fs::write(&policy, audit_policy()?)?;
    let plane = world.plane().await?;
    let logging = plane
        .another_api_server("replay", &[&format!("--audit-policy-file={}", policy.display())])
        .await?;
    let leases = Leases {
        api: logging.writer.clone(),
        namespace: world.leases("replay").await?.namespace,
    };
    // a leads and is killed, b takes over and releases, c acquires and is robbed by somebody who does not wait.
    let start = async |identity: &str| {
        elector_at(
            world,
            &leases,
            &logging.kubeconfig,
            identity,
            "client-go-0.37",
            "0s",
        )
        .await
    };
    let mut a = start("a").await?;
    a.event(started_leading).await.context("a does not acquire")?;
    let mut b = start("b").await?;
    b.event(sees_leader("a")).await?;
    renewals(&leases, 3).await?;
    a.kill().await?;
    b.event(started_leading).await.context("b does not take over")?;
    let mut c = start("c").await?;
    c.event(sees_leader("b")).await?;
    ensure!(b.terminate().await?.success(), "b: {}", b.log_tail(10));
    c.event(started_leading).await.context("c does not acquire")?;
    renewals(&leases, 2).await?;
    let now = leases.api.now().await?;
    let robbed = Edit::spec("thief", held("thief", now, 15, 3));
    leases
        .edit(Verb::Put, LEASE, &robbed.clone().dry())
        .await?
        .accepted()?;
    leases.edit(Verb::Put, LEASE, &robbed).await?.accepted()?;
    c.kill().await?;
    drop(logging);

    let log = world.folder().join("replay.api-audit.jsonl");
    let events = std::fs::read_to_string(&log)?;
    the_whole(&log).await?;
    let [least, wrapping] = ["replayed-less", "replayed-wrapped"].map(|name| world.folder().join(name));
    for folder in [&least, &wrapping] {
        std::fs::create_dir_all(folder)?;
    }
    less(&least, &events).await?;
    wrapped(&wrapping, &events).await
}

const TERMS: [(&str, &str); 4] = [
    ("a", "takenOver"),
    ("b", "released"),
    ("c", "takenOver"),
    ("thief", "open"),
];

/// What is said of the log as it is.
fn ensure_told(lease: &Value, basis: &str) -> anyhow::Result<()> {
    ensure!(terms(lease) == pairs(&TERMS), "{:?}", terms(lease));
    ensure!(
        lease["changes"] == 3 && lease["releases"] == 1 && lease["dryRuns"] == 1,
        "{lease}"
    );
    let [finding] = lease["findings"].as_array().context("no findings")?.as_slice() else {
        anyhow::bail!("one finding, not {}", lease["findings"]);
    };
    ensure!(
        text(finding, "/rule") == "takeover-before-expiry"
            && text(finding, "/decision") == "denied"
            && text(finding, "/message")
                .starts_with("\"thief\" may not take lease replay/lock from \"c\" yet")
            && text(finding, "/basis") == basis,
        "{finding}"
    );
    // The elector's own timings: it waits for the whole duration, and renews much more often.
    let number = |pointer: &str| lease.pointer(pointer).and_then(Value::as_f64).unwrap_or(-1.0);
    let duration = number("/renewals/durationSeconds");
    ensure!(
        number("/longestFailoverSeconds") >= duration - 1.0
            && number("/renewals/count") >= 5.0
            && number("/renewals/longestSeconds") < duration
            && number("/renewals/headroomSeconds") > 0.0,
        "{lease}"
    );
    Ok(())
}

async fn the_whole(log: &Path) -> anyhow::Result<()> {
    ensure_told(&report(&[], &[log], 1).await?, "managedFields")?;
    // Twice the same log is once the same log.
    ensure_told(&report(&[], &[log, log], 1).await?, "managedFields")?;
    let table = String::from_utf8(replay(&["--namespace", "replay"], &[log]).await?.stdout)?;
    for told in [
        "replay/lock",
        "taken over",
        "released",
        "leads",
        "denied: takeover-before-expiry: \"thief\"",
    ] {
        ensure!(table.contains(told), "{told}: {table}");
    }
    Ok(())
}

/// The log with each event changed.
fn changed(folder: &Path, name: &str, events: &str, change: impl Fn(&mut Value)) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path)?;
    for line in events.lines() {
        let mut event: Value = serde_json::from_str(line)?;
        change(&mut event);
        writeln!(file, "{event}")?;
    }
    Ok(path)
}

/// Logs that hold less.
async fn less(folder: &Path, events: &str) -> anyhow::Result<()> {
    let without_stamps = |event: &mut Value| {
        for body in ["requestObject", "responseObject"] {
            if let Some(metadata) = event
                .pointer_mut(&format!("/{body}/metadata"))
                .and_then(Value::as_object_mut)
            {
                metadata.remove("managedFields");
            }
        }
    };
    let path = changed(folder, "omitted.jsonl", events, without_stamps)?;
    ensure_told(&report(&[], &[&path], 1).await?, "auditTimes").context("managedFields omitted")?;
    let path = changed(folder, "request.jsonl", events, |event| {
        without_stamps(event);
        event["level"] = "Request".into();
        event["responseObject"] = Value::Null;
    })?;
    ensure_told(&report(&[], &[&path], 1).await?, "auditTimes").context("level Request")?;

    let path = changed(folder, "metadata.jsonl", events, |event| {
        event["level"] = "Metadata".into();
        event["requestObject"] = Value::Null;
        event["responseObject"] = Value::Null;
    })?;
    let lease = report(&["--duration", "15s"], &[&path], 0).await?;
    // All of these write by one token, from one address: what tells them apart is the program.
    ensure!(
        lease["changes"] == 0 && lease["findings"] == json!([]) && lease["level"] == "metadata",
        "{lease}"
    );
    ensure!(
        lease["terms"]
            .as_array()
            .is_some_and(|terms| { !terms.is_empty() && terms.iter().all(|term| term["inferred"] == true) }),
        "{lease}"
    );
    ensure!(
        lease.pointer("/renewals/count").and_then(Value::as_u64) >= Some(5),
        "{lease}"
    );
    Ok(())
}

/// The same log in what clouds and log collectors put around it.
async fn wrapped(folder: &Path, events: &str) -> anyhow::Result<()> {
    let lines = || events.lines();
    let strings = |field: &str| lines().map(|line| json!({field: line})).collect::<Vec<_>>();
    let parsed = || {
        lines()
            .map(serde_json::from_str::<Value>)
            .collect::<Result<Vec<_>, _>>()
    };
    let each = |wrap: &dyn Fn(&str) -> String| lines().map(|line| wrap(line) + "\n").collect::<String>();
    let mut gzip = Vec::new();
    // Two members, as a rotated set that was joined.
    let (first, second) = events.split_at(events.find('\n').context("one line")? + 1);
    for part in [first, second] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(part.as_bytes())?;
        gzip.extend(encoder.finish()?);
    }
    let forms: [(&str, Vec<u8>); 9] = [
        (
            "hostname",
            each(&|line| format!("master-0.example {line}")).into(),
        ),
        (
            "s3-export",
            each(&|line| format!("2026-11-27T10:00:00.000Z {line}")).into(),
        ),
        (
            "cri",
            each(&|line| format!("2026-11-27T10:00:00.123456789Z stdout F {line}")).into(),
        ),
        (
            "event-list",
            json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": parsed()?})
                .to_string()
                .into(),
        ),
        (
            "filter-log-events",
            serde_json::to_string_pretty(&json!({"events": strings("message"), "nextToken": "x"}))?.into(),
        ),
        (
            "subscription",
            json!({"messageType": "DATA_MESSAGE", "logEvents": strings("message")})
                .to_string()
                .into(),
        ),
        (
            "azure",
            each(&|line| {
                json!({"records": [{"category": "kube-audit", "properties": {"log": format!("{line}\n")}}]})
                    .to_string()
            })
            .into(),
        ),
        (
            "fluent-bit",
            each(&|line| json!({"log": line, "stream": "stdout"}).to_string()).into(),
        ),
        ("gzip", gzip),
    ];
    for (name, bytes) in forms {
        let path = folder.join(name);
        std::fs::write(&path, bytes)?;
        let lease = report(&[], &[&path], 1).await.with_context(|| name.to_owned())?;
        ensure_told(&lease, "managedFields").with_context(|| name.to_owned())?;
    }
    // All of them at once are one log.
    ensure_told(&report(&[], &[folder], 1).await?, "managedFields")
}
