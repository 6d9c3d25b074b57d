//! The flags, as close to what was typed as possible.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use super::certificate_args::CertificateArgs;
use crate::{
    audit::AuditLogTarget,
    cluster::NamespacedName,
    logging::{self, LogFormat},
};

// A paragraph is one line: clap wraps it to the terminal. A command that is longer than 80 columns is continued by hand.
const AFTER_HELP: &str = "\
Each flag can be given as an environment variable, as named beside it. Durations are written as 500ms, 5s, 1m30s.

Examples:
  On one machine, with a policy file:
    leasehold serve --tls-cert-file tls.crt --tls-private-key-file tls.key \\
      --policy-file policy.yaml

  In a pod, following a ConfigMap, with certificates that the replicas keep:
    leasehold serve --tls-secret leasehold-system/leasehold-certificates \\
      --webhook-configuration leasehold --service leasehold-system/leasehold \\
      --policy-configmap leasehold-system/leasehold-policy --audit-log -

Exit codes:
  0  after a shutdown that answered all that was in flight
  1  a second signal or the grace period cut something off, the audit log could
     not be written to its end, or a part of the process failed
  2  a flag's value cannot be used";

/// Flags of `leasehold serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(super) certificate: CertificateArgs,

    /// Serve only clients with a certificate of these CAs (PEM). The API server sends one only when its
    /// admission configuration says so. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_CLIENT_CA_FILE",
        help_heading = "TLS"
    )]
    pub(super) client_ca_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) policy: PolicyArgs,

    /// Kubeconfig for the API server, for the ConfigMap and the Secret; without it, the pod's ServiceAccount
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_KUBECONFIG",
        help_heading = "Policy"
    )]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Address of the webhook's port [default: all, IPv6 and IPv4]
    #[arg(
        long,
        value_name = "IP",
        env = "LEASEHOLD_BIND_ADDRESS",
        help_heading = "Ports"
    )]
    pub(super) bind_address: Option<IpAddr>,

    /// The webhook's port (TLS). 8443 needs no privileges, and a Service maps 443 to it. 0 picks a free one,
    /// which the log names
    #[arg(
        long,
        value_name = "PORT",
        env = "LEASEHOLD_SECURE_PORT",
        default_value_t = 8443,
        help_heading = "Ports"
    )]
    pub(super) secure_port: u16,

    /// Address of the admin port [default: all, IPv6 and IPv4]
    #[arg(
        long,
        value_name = "IP",
        env = "LEASEHOLD_ADMIN_BIND_ADDRESS",
        help_heading = "Ports"
    )]
    pub(super) admin_bind_address: Option<IpAddr>,

    /// Port of /livez, /readyz, /metrics and /loglevel (plain HTTP). 0 picks a free one, which the log names
    #[arg(
        long,
        value_name = "PORT",
        env = "LEASEHOLD_ADMIN_PORT",
        default_value_t = 8080,
        help_heading = "Ports"
    )]
    pub(super) admin_port: u16,

    /// Where to write the audit log: a file, or - for standard output, where nothing else is then written.
    /// Without it, none is kept
    #[arg(
        long,
        value_name = "FILE|-",
        env = "LEASEHOLD_AUDIT_LOG",
        help_heading = "Logs"
    )]
    pub(super) audit_log: Option<AuditLogTarget>,

    /// Write no Events. By default denials and warnings are told on the Lease, a refused policy on its ConfigMap,
    /// and a registration that was changed or deleted on the ValidatingWebhookConfiguration; never where nothing else
    /// asks the API server
    #[arg(long, env = "LEASEHOLD_NO_EVENTS", help_heading = "Logs")]
    pub(super) no_events: bool,

    /// What to log: off, error, warn, info, debug, trace, or directives such as info,hyper=debug. Changed while it runs
    /// by PUT of the same to /loglevel on the admin port, from the same pod or machine (kubectl port-forward) [default:
    /// what the environment variable RUST_LOG says, else info]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LEASEHOLD_LOG_LEVEL",
        value_parser = parse_filter,
        help_heading = "Logs"
    )]
    pub(super) log_level: Option<String>,

    /// How log lines look: auto is text on a terminal and JSON elsewhere
    #[arg(
        long,
        env = "LEASEHOLD_LOG_FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Logs"
    )]
    pub(super) log_format: LogFormat,

    /// After a signal, how long to serve on while the cluster learns that this replica goes
    // A readiness probe sees it within 4 s with the manifests' figures, and kube-proxy follows within its
    // minSyncPeriod of 1 s (`k8s.io/kubernetes/pkg/proxy/apis/config/v1alpha1/defaults.go`).
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_SHUTDOWN_DELAY",
        default_value = "5s",
        value_parser = parse_duration,
        help_heading = "Shutdown"
    )]
    pub(super) shutdown_delay: Duration,

    /// After that, how long connections may take to end before they are cut off. With the delay it must fit
    /// in the pod's terminationGracePeriodSeconds
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_SHUTDOWN_GRACE_PERIOD",
        default_value = "20s",
        value_parser = parse_duration,
        help_heading = "Shutdown"
    )]
    pub(super) shutdown_grace_period: Duration,

    /// How often certificates and the policy file are re-read and compared
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_RELOAD_INTERVAL",
        default_value = "10s",
        value_parser = parse_positive_duration,
        help_heading = "Limits"
    )]
    pub(super) reload_interval: Duration,

    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// Where the policy comes from: one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct PolicyArgs {
    /// The policy, in a file. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_POLICY_FILE",
        help_heading = "Policy"
    )]
    pub(super) policy_file: Option<PathBuf>,

    /// The policy, in the key policy.yaml of a ConfigMap, which is watched
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "LEASEHOLD_POLICY_CONFIGMAP",
        help_heading = "Policy"
    )]
    pub(super) policy_configmap: Option<NamespacedName>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Connections open at once; for one more, the oldest that has not asked anything yet is closed, or itself if all
    /// have
    #[arg(long, value_name = "N", env = "LEASEHOLD_MAX_CONNECTIONS", default_value_t = 512, value_parser = at_least_one())]
    pub(super) max_connections: u32,

    /// Reviews in flight at once; one more is answered 429
    #[arg(long, value_name = "N", env = "LEASEHOLD_MAX_REVIEWS", default_value_t = 512, value_parser = at_least_one())]
    pub(super) max_reviews: u32,

    /// Bytes of one review; a longer one is answered 413. The default holds the largest that an API server can
    /// send of objects that etcd stores (1.5 MiB, six times as long in a review)
    #[arg(
        long,
        value_name = "BYTES",
        env = "LEASEHOLD_MAX_BODY_BYTES",
        default_value_t = 19 << 20,
        value_parser = at_least_one()
    )]
    pub(super) max_body_bytes: u32,

    /// How long a TLS handshake may take
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_HANDSHAKE_TIMEOUT",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    pub(super) handshake_timeout: Duration,

    /// How long a new connection's first request may take to come
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_HEADERS_TIMEOUT",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    pub(super) headers_timeout: Duration,

    /// How long a review's body may take to arrive. The API server's own timeout shortens it
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_BODY_TIMEOUT",
        default_value = "30s",
        value_parser = parse_positive_duration
    )]
    pub(super) body_timeout: Duration,

    /// How long an HTTP/1.1 connection may be idle. The API server's client keeps one for 90s, and should be
    /// the first to close it
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_IDLE_TIMEOUT",
        default_value = "2m",
        value_parser = parse_positive_duration
    )]
    pub(super) idle_timeout: Duration,
}

impl ServeArgs {
    /// How to log, needed before anything else. What is said to Leasehold goes before `RUST_LOG`, which is said to
    /// every program.
    pub(super) fn logging(&self) -> anyhow::Result<(EnvFilter, LogFormat)> {
        let of_all_programs = std::env::var("RUST_LOG")
            .ok()
            .filter(|directives| !directives.is_empty());
        let (name, directives) = match (&self.log_level, &of_all_programs) {
            (Some(directives), _) => ("--log-level", directives.as_str()),
            (None, Some(directives)) => ("the environment variable RUST_LOG", directives.as_str()),
            (None, None) => ("--log-level", "info"),
        };
        let filter = logging::parse_filter(directives).with_context(|| name.to_owned())?;
        Ok((filter, self.log_format))
    }
}

/// Semaphores count further than this; nobody needs to.
fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(i32::MAX))
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "expected a duration such as 500ms, 5s or 1m30s".to_owned())
}

pub(super) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        Err("must be longer than nothing".to_owned())
    } else {
        Ok(duration)
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    logging::parse_filter(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
