//! (c) What `leasehold serve` keeps in memory: as the manifests run it, with the policy watched in a real API server
//! and with an audit log.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    client::{Callers, Load},
    guard::{NAMESPACE, POLICY_CONFIG_MAP},
    harness::{
        api::Api,
        assets::{Assets, repository},
        control_plane::free_port,
        process::Process,
        samples::Samples,
        until,
        world::World,
    },
    report::{Report, Row},
    verdict,
};

const REVIEWS: u64 = 1_000_000;
const LEASES: u64 = 100_000;
/// When to look, in hundredths of the reviews.
const LOOKS: [u64; 3] = [10, 50, 100];

/// How long a process that is ready is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures and reports.
pub(crate) async fn run(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let plane = world.plane().await?;
    let manifests = repository("manifests/overlays/enforce").display().to_string();
    plane.kubectl(&["apply", "-k", &manifests]).await?;
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "leasehold").await?;
    let leaf = plane
        .authority()
        .issue(world.folder(), "memory", &["127.0.0.1"])?;
    let (secure_port, admin_port) = (free_port()?, free_port()?);
    let arguments = [
        "serve".to_owned(),
        format!("--tls-cert-file={}", leaf.certificate.display()),
        format!("--tls-private-key-file={}", leaf.key.display()),
        format!("--policy-configmap={NAMESPACE}/{POLICY_CONFIG_MAP}"),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure_port}"),
        "--admin-bind-address=127.0.0.1".to_owned(),
        format!("--admin-port={admin_port}"),
        "--audit-log=/dev/null".to_owned(),
    ];
    let process = Process::start(world.folder(), "memory", Assets::leasehold(), &arguments).await?;
    let authority = plane.authority().pem();
    let admin = Api::new(
        &format!("http://127.0.0.1:{admin_port}"),
        authority,
        "not asked for",
    )?;
    until("Leasehold to be ready", || async {
        process.ensure_running()?;
        Ok(admin
            .get("/readyz")
            .await
            .is_ok_and(|reply| reply.code == 200)
            .then_some(()))
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    let idle = Resident::of(process.id()?)?;
    report.row(Row {
        what: "(c) resident memory, idle".to_owned(),
        measured: idle.to_string(),
        against: String::new(),
        ratio: String::new(),
        goal: "12 MiB",
        conditions: "VmRSS; in it, as much is shared with the executable's file as the brackets say"
            .to_owned(),
    });

    let numbered = Numbered::new()?;
    let address = SocketAddr::from(([127, 0, 0, 1], secure_port));
    let load = Load::SERVICE;
    let mut callers = Callers::connect(address, authority, load).await?;
    let (mut done, mut seen) = (0, Vec::new());
    for percent in LOOKS {
        let end = REVIEWS / 100 * percent;
        callers.post(done..end, |number| numbered.review(number)).await?;
        done = end;
        seen.push(Resident::of(process.id()?)?);
    }
    let metrics = admin.get("/metrics").await?;
    let metrics = Samples::parse(metrics.body.as_str().context("the metrics are not text")?);
    let judged = metrics.sum("leasehold_reviews_total", &[("change", "takeover")]);
    ensure!(
        judged == REVIEWS as f64,
        "{judged} of {REVIEWS} reviews were judged"
    );

    let [first, .., last] = seen.as_slice() else {
        anyhow::bail!("no look at all");
    };
    let course: Vec<_> = LOOKS
        .iter()
        .zip(&seen)
        .map(|(percent, seen)| format!("{seen} at {percent} %"))
        .collect();
    report.row(Row {
        what: format!("(c) resident memory after {REVIEWS} reviews of {LEASES} leases"),
        measured: last.to_string(),
        against: course.join(", "),
        ratio: format!(
            "{:.2} from the first look to the last",
            last.kib as f64 / first.kib as f64
        ),
        goal: "24 MiB, flat",
        conditions: load.to_string(),
    });
    Ok(())
}

/// Resident memory of a process.
struct Resident {
    kib: u64,
    /// The part of it that are pages of files, mostly of the executable.
    file_kib: u64,
}

impl Resident {
    fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
                .with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self {
            kib: field("VmRSS:")?,
            file_kib: field("RssFile:")?,
        })
    }
}

impl std::fmt::Display for Resident {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        write!(
            formatter,
            "{:.1} MiB ({:.1} of files)",
            mib(self.kib),
            mib(self.file_kib)
        )
    }
}

/// The review of (a) with names, identities and a uid of its own for each number.
struct Numbered {
    text: Vec<u8>,
    /// Where the number of the lease stands.
    lease: Vec<usize>,
    /// Where the number of the review stands.
    review: usize,
}

/// What stands for a number until it is written, as long as the number.
const LEASE_MARK: &str = "@lease@";
const REVIEW_MARK: &str = "@count@";

impl Numbered {
    fn new() -> anyhow::Result<Self> {
        let mut review: Value = serde_json::from_slice(&verdict::review())?;
        let request = &mut review["request"];
        let name = Value::from(format!("payments-{LEASE_MARK}"));
        request["name"] = name.clone();
        request["uid"] = format!("00000000-0000-0000-0000-00000{REVIEW_MARK}").into();
        for (object, holder) in [("object", "new"), ("oldObject", "old")] {
            request[object]["metadata"]["name"] = name.clone();
            request[object]["spec"]["holderIdentity"] = format!("payments-{LEASE_MARK}-{holder}").into();
        }
        let text = review.to_string();
        let places = |mark: &str| text.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
        let (lease, review) = (places(LEASE_MARK), places(REVIEW_MARK));
        ensure!(lease.len() == 5 && review.len() == 1, "the review is not marked");
        Ok(Self {
            review: review[0],
            lease,
            text: text.into_bytes(),
        })
    }

    fn review(&self, number: u64) -> Bytes {
        let mut text = self.text.clone();
        let mut write = |at: usize, number: u64| {
            let digits = format!("{number:0width$}", width = LEASE_MARK.len());
            text[at..at + digits.len()].copy_from_slice(digits.as_bytes());
        };
        for at in &self.lease {
            write(*at, number % LEASES);
        }
        write(self.review, number);
        text.into()
    }
}
