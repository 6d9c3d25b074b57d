//! (d) A renewal and a takeover through a real API server: with no webhook, with Leasehold as its manifests deploy it,
//! with what `leasehold export vap` makes of the same policy, and with both. All at once, each in a namespace of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use jiff::Timestamp;
use leasehold::policy::in_process::Export;
use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, Reply},
        control_plane::ControlPlane,
        leases::Leases,
        network::Network,
        samples::Samples,
        until,
        world::World,
    },
    pair::median,
    report::{Report, Row},
};

/// Which of the guards a namespace has.
const LABEL: &str = "speed.leasehold.dev/guard";
/// What refuses a write in each of the namespaces, as its message begins. The first is what the others are measured by.
const GUARDS: [(&str, &str); 4] = [
    ("nothing", ""),
    ("leasehold", "admission webhook"),
    ("policy", "ValidatingAdmissionPolicy"),
    // The API server asks its policies first.
    ("both", "ValidatingAdmissionPolicy"),
];

const RENEWALS: usize = 1_500;
const TAKEOVERS: usize = 500;
/// Writes of each kind that do not count: connections, compiled expressions, caches.
const WARM_UP: usize = 50;

/// The shortest duration that the rules allow.
const SECONDS: i64 = 5;

/// One namespace, and what its writes took.
struct Guarded {
    guard: &'static str,
    leases: Leases,
    took: Vec<Duration>,
}

/// Measures and reports.
pub(crate) async fn run(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let plane = world.plane().await?;
    let version = plane.admin()?.get("/version").await?.accepted()?;
    let version = version["gitVersion"].as_str().unwrap_or_default().to_owned();
    report.condition(format!(
        "(d): Kubernetes {version}, etcd without fsync (a disk would make every write slower, and the ratios smaller), \
         audit log at level Metadata, Leasehold called {}",
        match world.network {
            Network::Namespace => "by its Service, two replicas",
            Network::Loopback => "by URL, one replica",
        }
    ));
    let mut all = prepare(plane).await?;

    let before = plane.metrics().await?;
    renew(&mut all).await?;
    let means = Means::between(&guard.webhook, &before, &plane.metrics().await?);
    tell("renewal", &mut all, &means, report)?;

    let prepared = prepare_takeovers(&all).await?;
    let before = plane.metrics().await?;
    take_over(&mut all, prepared).await?;
    let means = Means::between(&guard.webhook, &before, &plane.metrics().await?);
    tell("takeover", &mut all, &means, report)
}

/// Makes the namespaces, and waits until each is guarded by what it should be, and by nothing else.
async fn prepare(plane: &ControlPlane) -> anyhow::Result<Vec<Guarded>> {
    let admin = plane.admin()?;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/leasehold";
    let only_there = json!([{
        "op": "add",
        "path": "/webhooks/0/namespaceSelector/matchExpressions/-",
        "value": {"key": LABEL, "operator": "In", "values": ["leasehold", "both"]},
    }]);
    let body = only_there.to_string().into_bytes();
    admin
        .request(Method::PATCH, path, "application/json-patch+json", body)
        .await?
        .accepted()?;
    for mut object in Export::of("")?.objects() {
        let kind = object["kind"].as_str().unwrap_or_default();
        let resource = match kind {
            "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
            _ => "validatingadmissionpolicybindings",
        };
        if resource == "validatingadmissionpolicybindings" {
            let there = json!([{"key": LABEL, "operator": "In", "values": ["policy", "both"]}]);
            object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchExpressions": there}});
        }
        let path = format!("/apis/admissionregistration.k8s.io/v1/{resource}");
        admin.post(&path, &object).await?.accepted()?;
    }
    let mut all = Vec::new();
    for (guard, refuses) in GUARDS {
        let namespace = format!("speed-{guard}");
        admin.create_namespace(&namespace, json!({LABEL: guard})).await?;
        let leases = Leases {
            api: plane.writer()?,
            namespace,
        };
        until(&format!("{guard} to guard {}", leases.namespace), || async {
            let reply = attack(&leases).await?;
            leases.delete("probe").await?.accepted()?;
            let refused = reply.code >= 400;
            ensure!(
                !refused || (!refuses.is_empty() && reply.message().contains(refuses)),
                "{guard}: refused by something else: {}",
                reply.message()
            );
            Ok((refused != refuses.is_empty()).then_some(()))
        })
        .await?;
        all.push(Guarded {
            guard,
            leases,
            took: Vec::new(),
        });
    }
    Ok(all)
}

/// A takeover that comes much too early.
async fn attack(leases: &Leases) -> anyhow::Result<Reply> {
    let lease = leases.create("probe", "a", held("a", 15)).await?.accepted()?;
    put(leases, "probe", "b", &taken_over(lease)).await
}

async fn renew(all: &mut [Guarded]) -> anyhow::Result<()> {
    let mut current = Vec::new();
    for guarded in &*all {
        let lease = guarded.leases.create("renewed", "a", held("a", 15)).await?;
        current.push(lease.accepted()?);
    }
    for round in 0..WARM_UP + RENEWALS {
        for turn in 0..all.len() {
            let at = (round + turn) % all.len();
            let (guarded, lease) = (&mut all[at], &mut current[at]);
            lease["spec"]["renewTime"] = now().into();
            let started = Instant::now();
            let reply = put(&guarded.leases, "renewed", "a", lease).await?;
            guarded.note(round, started.elapsed());
            *lease = reply.accepted()?;
        }
    }
    Ok(())
}

/// Creates as many leases as are to be taken over, and waits once until all of them have expired.
async fn prepare_takeovers(all: &[Guarded]) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut prepared = Vec::new();
    for number in 0..WARM_UP + TAKEOVERS {
        let mut leases = Vec::new();
        for guarded in all {
            let lease = guarded
                .leases
                .create(&name(number), "a", held("a", SECONDS))
                .await?;
            leases.push(lease.accepted()?);
        }
        prepared.push(leases);
    }
    let api: &Api = &all.first().context("no namespace")?.leases.api;
    // One second for the stamp's floor.
    api.until_elapsed(api.now().await?, SECONDS + 1).await?;
    Ok(prepared)
}

async fn take_over(all: &mut [Guarded], prepared: Vec<Vec<Value>>) -> anyhow::Result<()> {
    for (round, leases) in prepared.into_iter().enumerate() {
        let mut leases: Vec<_> = leases.into_iter().map(taken_over).enumerate().collect();
        let turns = leases.len();
        leases.rotate_left(round % turns);
        for (at, lease) in leases {
            let guarded = &mut all[at];
            let started = Instant::now();
            let reply = put(&guarded.leases, &name(round), "b", &lease).await?;
            guarded.note(round, started.elapsed());
            reply.accepted()?;
        }
    }
    Ok(())
}

impl Guarded {
    fn note(&mut self, round: usize, took: Duration) {
        if round >= WARM_UP {
            self.took.push(took);
        }
    }
}

fn tell(what: &str, all: &mut [Guarded], means: &Means, report: &mut Report) -> anyhow::Result<()> {
    let mut p50 = Vec::new();
    let mut writes = 0;
    for guarded in all {
        writes = guarded.took.len();
        p50.push((guarded.guard, median(std::mem::take(&mut guarded.took))));
    }
    let milliseconds = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let [(_, nothing), guards @ ..] = p50.as_slice() else {
        anyhow::bail!("no namespace");
    };
    for (guard, took) in guards {
        let (with, own) = match *guard {
            "leasehold" => ("Leasehold", means.of_leasehold()),
            "policy" => ("the exported policies", means.of_policy()),
            _ => ("both", format!("{}; {}", means.of_leasehold(), means.of_policy())),
        };
        report.row(Row {
            what: format!("(d) {what} through the API server, with {with}"),
            measured: format!("{} (p50)", milliseconds(*took)),
            against: format!("{} with no guard", milliseconds(*nothing)),
            ratio: format!(
                "{:.2} times as long ({:+.0} us)",
                took.as_secs_f64() / nothing.as_secs_f64(),
                (took.as_secs_f64() - nothing.as_secs_f64()) * 1e6
            ),
            goal: "",
            conditions: format!("PUT, {writes} each in turn; by the API server's own count: {own}"),
        });
    }
    Ok(())
}

/// Means of the API server's own metrics over a phase.
struct Means {
    match_condition: Mean,
    webhook: Mean,
    policies: Mean,
}

/// How often, and how many seconds in all.
struct Mean {
    count: f64,
    seconds: f64,
}

impl Means {
    fn between(webhook: &str, before: &Samples, after: &Samples) -> Self {
        let mean = |name: &str, labels: &[(&str, &str)]| {
            let moved = |suffix: &str| {
                let name = format!("{name}_{suffix}");
                after.sum(&name, labels) - before.sum(&name, labels)
            };
            Mean {
                count: moved("count"),
                seconds: moved("sum"),
            }
        };
        let webhook = [("name", webhook)];
        Self {
            match_condition: mean("apiserver_admission_match_condition_evaluation_seconds", &webhook),
            webhook: mean("apiserver_admission_webhook_admission_duration_seconds", &webhook),
            // The API server's metric by policy moves only where one denies or fails (observed), but the whole plugin's
            // moves always: with the other namespaces' writes, too, which no policy matches.
            policies: mean(
                "apiserver_admission_controller_admission_duration_seconds",
                &[("name", "ValidatingAdmissionPolicy"), ("operation", "UPDATE")],
            ),
        }
    }

    fn of_leasehold(&self) -> String {
        format!(
            "match condition {}, webhook {}",
            self.match_condition, self.webhook
        )
    }

    fn of_policy(&self) -> String {
        format!("policies {}, half of them in the other namespaces", self.policies)
    }
}

impl std::fmt::Display for Mean {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count == 0.0 {
            return formatter.write_str("never asked");
        }
        let microseconds = self.seconds / self.count * 1e6;
        write!(formatter, "{microseconds:.0} us a time, {} times", self.count)
    }
}

/// The time as a client writes it.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

fn name(number: usize) -> String {
    format!("taken-{number}")
}

fn held(holder: &str, seconds: i64) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": now(),
        "renewTime": now(),
        "leaseTransitions": 0,
    })
}

/// The lease as its next holder writes it, with the resourceVersion that it read.
fn taken_over(mut lease: Value) -> Value {
    lease["spec"] = held("b", 15);
    lease["spec"]["leaseTransitions"] = 1.into();
    lease
}

async fn put(leases: &Leases, name: &str, manager: &str, lease: &Value) -> anyhow::Result<Reply> {
    let path = format!("{}?fieldManager={manager}", leases.path(name));
    let body = lease.to_string().into_bytes();
    leases
        .api
        .request(Method::PUT, &path, "application/json", body)
        .await
}
