//! (d) Writes through a real API server, in namespaces that differ by their guard: none, Leasehold as its manifests
//! deploy it, what `leasehold export vap` makes of the same policy, the same with `--advice`, and both halves. One loop
//! writes in each namespace in turn, so that the machine's other work slows all alike.

mod pairs;
mod server_metrics;
mod writes;

use anyhow::ensure;
use http::Method;
use leasehold::policy::in_process::{Export, ExportOptions};
use serde_json::json;

use self::{
    pairs::Series,
    server_metrics::Means,
    writes::{acquire_and_release, held, prepare_takeovers, put, renew, take_over, taken_over},
};
use crate::{
    harness::{
        api::Reply, audit::text, control_plane::ControlPlane, leases::Leases, network::Network, policies,
        until, world::World,
    },
    report::{Report, Row},
};

/// Which of the guards a namespace has.
const LABEL: &str = "speed.leasehold.dev/guard";

/// What a namespace is guarded by.
struct Guard {
    /// The value of its label.
    label: &'static str,
    /// In the report.
    name: &'static str,
    /// How the message of a refusal begins; empty where nothing is refused.
    refuses: &'static str,
    /// What a renewal may take at the most, and then every other write.
    goals: [&'static str; 2],
}

/// The first is what the others are measured by. The second shows what the machine adds of its own accord.
const GUARDS: [Guard; 6] = [
    Guard {
        label: "nothing",
        name: "nothing",
        refuses: "",
        goals: ["", ""],
    },
    Guard {
        label: "control",
        name: "nothing, once more",
        refuses: "",
        goals: ["1", "1"],
    },
    Guard {
        label: "webhook",
        name: "Leasehold",
        refuses: "admission webhook",
        goals: ["1.05", ""],
    },
    Guard {
        label: "policy",
        name: "the exported policy",
        refuses: "ValidatingAdmissionPolicy",
        goals: ["1.08", "1.2"],
    },
    Guard {
        label: "advice",
        name: "the exported policies, with --advice",
        refuses: "ValidatingAdmissionPolicy",
        goals: ["", ""],
    },
    // The API server asks its policies first.
    Guard {
        label: "both",
        name: "Leasehold and the exported policy",
        refuses: "ValidatingAdmissionPolicy",
        goals: ["", ""],
    },
];

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
    let all = prepare(plane).await?;

    let before = plane.metrics().await?;
    let renewals = renew(&all).await?;
    let means = Means::between(&guard.webhook, &before, &plane.metrics().await?);
    tell("renewal", &renewals, Some(&means), report);

    let (acquisitions, releases) = acquire_and_release(&all).await?;
    tell("acquisition", &acquisitions, None, report);
    tell("release", &releases, None, report);

    let prepared = prepare_takeovers(&all).await?;
    let before = plane.metrics().await?;
    let takeovers = take_over(&all, prepared).await?;
    let means = Means::between(&guard.webhook, &before, &plane.metrics().await?);
    tell("lawful takeover", &takeovers, Some(&means), report);
    Ok(())
}

/// Makes the namespaces of [`GUARDS`], and waits until each is guarded by what it should be, and by nothing else.
async fn prepare(plane: &ControlPlane) -> anyhow::Result<Vec<Leases>> {
    let admin = plane.admin()?;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/leasehold";
    let only_there = json!([{
        "op": "add",
        "path": "/webhooks/0/namespaceSelector/matchExpressions/-",
        "value": {"key": LABEL, "operator": "In", "values": ["webhook", "both"]},
    }]);
    let body = only_there.to_string().into_bytes();
    admin
        .request(Method::PATCH, path, "application/json-patch+json", body)
        .await?
        .accepted()?;
    let options = ExportOptions {
        advice: true,
        ..ExportOptions::default()
    };
    let mut objects = Export::of("", options)?.objects();
    for object in &mut objects {
        if text(object, "/kind") == "ValidatingAdmissionPolicyBinding" {
            let guards: &[&str] = if text(object, "/metadata/name").starts_with("deny.") {
                &["policy", "advice", "both"]
            } else {
                &["advice"]
            };
            let there = json!([{"key": LABEL, "operator": "In", "values": guards}]);
            object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchExpressions": there}});
        }
    }
    policies::install(&admin, objects, "speed.compiled").await?;
    let mut all = Vec::new();
    for guard in &GUARDS {
        let namespace = format!("speed-{}", guard.label);
        admin
            .create_namespace(&namespace, json!({LABEL: guard.label}))
            .await?;
        let leases = Leases {
            api: plane.writer()?,
            namespace,
        };
        until(
            &format!("{} to guard {}", guard.name, leases.namespace),
            || async {
                let reply = attack(&leases).await?;
                leases.delete("probe").await?.accepted()?;
                let refused = reply.code >= 400;
                ensure!(
                    !refused || (!guard.refuses.is_empty() && reply.message().contains(guard.refuses)),
                    "{}: refused by something else: {}",
                    guard.name,
                    reply.message()
                );
                Ok((refused != guard.refuses.is_empty()).then_some(()))
            },
        )
        .await?;
        all.push(leases);
    }
    Ok(all)
}

/// A takeover that comes much too early.
async fn attack(leases: &Leases) -> anyhow::Result<Reply> {
    let lease = leases.create("probe", "a", held("a", 15)).await?.accepted()?;
    put(leases, "probe", "b", &taken_over(lease)).await
}

fn tell(what: &str, series: &Series, means: Option<&Means>, report: &mut Report) {
    let milliseconds = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let nothing = series.median(0);
    for (index, guard) in GUARDS.iter().enumerate().skip(1) {
        let took = series.median(index);
        let (ratio, least, most) = series.ratio(index);
        let own = means.map(|means| match guard.label {
            "webhook" => format!("; by the API server's own count: {}", means.of_leasehold()),
            "policy" => format!("; by the API server's own count: {}", means.of_policy()),
            _ => String::new(),
        });
        report.row(Row {
            what: format!("(d) {what} through the API server, guarded by {}", guard.name),
            measured: format!("{} (p50)", milliseconds(took)),
            against: format!("{} guarded by nothing", milliseconds(nothing)),
            ratio: format!(
                "{ratio:.2} times as long ({least:.2} to {most:.2}; {:+.0} us)",
                (took - nothing) * 1e6
            ),
            goal: guard.goals[usize::from(what != "renewal")],
            conditions: format!(
                "PUT, {} each in turn, ratio of the medians, and its least and most in {} parts of the run{}",
                series.rounds(),
                pairs::PARTS,
                own.unwrap_or_default()
            ),
        });
    }
}
