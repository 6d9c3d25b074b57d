//! The flags, as close to what was typed as possible, and what they mean when taken together.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use crate::{
    audit::AuditLogTarget,
    cluster::ConfigMapName,
    logging::{self, LogFormat},
    server::{CertificateFiles, Limits, NamedFile},
};

const AFTER_HELP: &str = "\
Each flag can be given as an environment variable, as named beside it. Durations are written as 500ms, 5s, 1m30s.

Examples:
  On one machine, with a policy file:
    leasehold serve --tls-cert-file tls.crt --tls-private-key-file tls.key --policy-file policy.yaml
  In a pod, following a ConfigMap:
    leasehold serve --tls-cert-file /etc/leasehold/tls/tls.crt --tls-private-key-file /etc/leasehold/tls/tls.key \\
      --policy-configmap leasehold-system/leasehold-policy --audit-log -

Exit codes: 0 after a shutdown that answered all that was in flight, 1 when a second signal or the grace period cut
something off or the audit log could not be written to its end, 2 when a flag's value cannot be used.";

/// Flags of `leasehold serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArgs {
    /// The serving certificate: a PEM chain, the server's own certificate first. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_TLS_CERT_FILE",
        help_heading = "TLS"
    )]
    tls_cert_file: PathBuf,

    /// The certificate's private key in PEM. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_TLS_PRIVATE_KEY_FILE",
        help_heading = "TLS"
    )]
    tls_private_key_file: PathBuf,

    /// Serve only clients with a certificate of these CAs (PEM). The API server sends one only when its admission
    /// configuration says so. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_CLIENT_CA_FILE",
        help_heading = "TLS"
    )]
    client_ca_file: Option<PathBuf>,

    #[command(flatten)]
    policy: PolicyArgs,

    /// Kubeconfig for reading the ConfigMap; without it, the pod's ServiceAccount
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_KUBECONFIG",
        conflicts_with = "policy_file",
        help_heading = "Policy"
    )]
    kubeconfig: Option<PathBuf>,

    /// Address of the webhook's port [default: all, IPv6 and IPv4]
    #[arg(
        long,
        value_name = "IP",
        env = "LEASEHOLD_BIND_ADDRESS",
        help_heading = "Ports"
    )]
    bind_address: Option<IpAddr>,

    /// The webhook's port (TLS). 8443 needs no privileges, and a Service maps 443 to it. 0 picks a free one, which the log
    /// names
    #[arg(
        long,
        value_name = "PORT",
        env = "LEASEHOLD_SECURE_PORT",
        default_value_t = 8443,
        help_heading = "Ports"
    )]
    secure_port: u16,

    /// Address of the admin port [default: all, IPv6 and IPv4]
    #[arg(
        long,
        value_name = "IP",
        env = "LEASEHOLD_ADMIN_BIND_ADDRESS",
        help_heading = "Ports"
    )]
    admin_bind_address: Option<IpAddr>,

    /// Port of /livez, /readyz and /metrics (plain HTTP). 0 picks a free one, which the log names
    #[arg(
        long,
        value_name = "PORT",
        env = "LEASEHOLD_ADMIN_PORT",
        default_value_t = 8080,
        help_heading = "Ports"
    )]
    admin_port: u16,

    /// Where to write the audit log: a file, or - for standard output, where nothing else is then written. Without it, none
    /// is kept
    #[arg(
        long,
        value_name = "FILE|-",
        env = "LEASEHOLD_AUDIT_LOG",
        help_heading = "Logs"
    )]
    audit_log: Option<AuditLogTarget>,

    /// What to log: error, warn, info, debug, trace, or directives such as info,hyper=debug
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LEASEHOLD_LOG_LEVEL",
        default_value = "info",
        value_parser = parse_filter,
        help_heading = "Logs"
    )]
    log_level: String,

    /// How log lines look: auto is text on a terminal and JSON elsewhere
    #[arg(
        long,
        env = "LEASEHOLD_LOG_FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Logs"
    )]
    log_format: LogFormat,

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
    shutdown_delay: Duration,

    /// After that, how long connections may take to end before they are cut off. With the delay it must fit in the pod's
    /// terminationGracePeriodSeconds
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_SHUTDOWN_GRACE_PERIOD",
        default_value = "20s",
        value_parser = parse_duration,
        help_heading = "Shutdown"
    )]
    shutdown_grace_period: Duration,

    /// How often certificates and the policy file are re-read and compared
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_RELOAD_INTERVAL",
        default_value = "10s",
        value_parser = parse_positive_duration,
        help_heading = "Limits"
    )]
    reload_interval: Duration,

    #[command(flatten)]
    limits: LimitArgs,
}

/// Where the policy comes from: one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PolicyArgs {
    /// The policy, in a file. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_POLICY_FILE",
        help_heading = "Policy"
    )]
    policy_file: Option<PathBuf>,

    /// The policy, in the key policy.yaml of a ConfigMap, which is watched
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "LEASEHOLD_POLICY_CONFIGMAP",
        help_heading = "Policy"
    )]
    policy_configmap: Option<ConfigMapName>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections open at once; one more is closed at once
    #[arg(long, value_name = "N", env = "LEASEHOLD_MAX_CONNECTIONS", default_value_t = 512, value_parser = at_least_one())]
    max_connections: u32,

    /// Reviews in flight at once; one more is answered 429
    #[arg(long, value_name = "N", env = "LEASEHOLD_MAX_REVIEWS", default_value_t = 512, value_parser = at_least_one())]
    max_reviews: u32,

    /// Bytes of one review; a longer one is answered 413. The default holds the largest that an API server can send
    #[arg(
        long,
        value_name = "BYTES",
        env = "LEASEHOLD_MAX_BODY_BYTES",
        default_value_t = 7 << 20,
        value_parser = at_least_one()
    )]
    max_body_bytes: u32,

    /// How long a TLS handshake may take
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_HANDSHAKE_TIMEOUT",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    handshake_timeout: Duration,

    /// How long a new connection's first request may take to come
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_HEADERS_TIMEOUT",
        default_value = "10s",
        value_parser = parse_positive_duration
    )]
    headers_timeout: Duration,

    /// How long a review's body may take to arrive. The API server's own timeout shortens it
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_BODY_TIMEOUT",
        default_value = "30s",
        value_parser = parse_positive_duration
    )]
    body_timeout: Duration,

    /// How long an HTTP/1.1 connection may be idle. The API server's client keeps one for 90s, and should be the first to
    /// close it
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEHOLD_IDLE_TIMEOUT",
        default_value = "2m",
        value_parser = parse_positive_duration
    )]
    idle_timeout: Duration,
}

/// Where the policy comes from.
#[derive(Debug)]
pub(super) enum PolicyLocation {
    ConfigMap {
        name: ConfigMapName,
        kubeconfig: Option<PathBuf>,
    },
    File(NamedFile),
}

/// What the flags mean: every combination that can be held is one that can be served.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) certificate: CertificateFiles,
    pub(super) client_ca: Option<NamedFile>,
    pub(super) policy: PolicyLocation,
    pub(super) webhook_address: ListenAddress,
    pub(super) admin_address: ListenAddress,
    pub(super) audit_log: Option<AuditLogTarget>,
    pub(super) shutdown_delay: Duration,
    pub(super) reload_interval: Duration,
    pub(super) limits: Limits,
}

/// An address to listen on, with the flags that named it.
#[derive(Debug)]
pub(super) struct ListenAddress {
    /// None: all addresses.
    pub(super) ip: Option<IpAddr>,
    pub(super) ip_flag: &'static str,
    pub(super) port: u16,
    pub(super) port_flag: &'static str,
}

impl ServeArgs {
    /// How to log, needed before anything else. `RUST_LOG` goes before the flag, as everywhere in Rust.
    pub(super) fn logging(&self) -> anyhow::Result<(EnvFilter, LogFormat)> {
        let directives = std::env::var("RUST_LOG")
            .ok()
            .filter(|directives| !directives.is_empty());
        let (name, directives) = match &directives {
            Some(directives) => ("RUST_LOG", directives),
            None => ("--log-level", &self.log_level),
        };
        let filter = logging::parse_filter(directives)
            .map_err(|error| anyhow::anyhow!("{name} {directives}: {error}; give a level such as info"))?;
        Ok((filter, self.log_format))
    }

    pub(super) fn into_config(self) -> Config {
        // Every field is named, so that a flag that nobody heeds does not compile.
        let Self {
            tls_cert_file,
            tls_private_key_file,
            client_ca_file,
            policy: PolicyArgs {
                policy_file,
                policy_configmap,
            },
            kubeconfig,
            bind_address,
            secure_port,
            admin_bind_address,
            admin_port,
            audit_log,
            log_level: _,
            log_format: _,
            shutdown_delay,
            shutdown_grace_period,
            reload_interval,
            limits,
        } = self;
        let policy = match (policy_file, policy_configmap) {
            (_, Some(name)) => PolicyLocation::ConfigMap { name, kubeconfig },
            // The group lets exactly one of the two through.
            (file, None) => PolicyLocation::File(NamedFile::new("--policy-file", file.unwrap_or_default())),
        };
        Config {
            certificate: CertificateFiles {
                certificate: NamedFile::new("--tls-cert-file", tls_cert_file),
                private_key: NamedFile::new("--tls-private-key-file", tls_private_key_file),
            },
            client_ca: client_ca_file.map(|path| NamedFile::new("--client-ca-file", path)),
            policy,
            webhook_address: ListenAddress {
                ip: bind_address,
                ip_flag: "--bind-address",
                port: secure_port,
                port_flag: "--secure-port",
            },
            admin_address: ListenAddress {
                ip: admin_bind_address,
                ip_flag: "--admin-bind-address",
                port: admin_port,
                port_flag: "--admin-port",
            },
            audit_log,
            shutdown_delay,
            reload_interval,
            limits: limits.into_limits(shutdown_grace_period),
        }
    }
}

impl LimitArgs {
    fn into_limits(self, grace_period: Duration) -> Limits {
        let Self {
            max_connections,
            max_reviews,
            max_body_bytes,
            handshake_timeout,
            headers_timeout,
            body_timeout,
            idle_timeout,
        } = self;
        let max_body_bytes = max_body_bytes as usize;
        let defaults = Limits::webhook();
        Limits {
            max_connections: max_connections as usize,
            max_reviews: max_reviews as usize,
            max_body_bytes,
            // A body that one may send must not be too much for all of them together.
            max_held_bytes: defaults.max_held_bytes.max(max_body_bytes),
            handshake: handshake_timeout,
            headers: headers_timeout,
            body: body_timeout,
            idle: idle_timeout,
            grace_period,
            ..defaults
        }
    }
}

/// Semaphores count further than this; nobody needs to.
fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(i32::MAX))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "expected a duration such as 500ms, 5s or 1m30s".to_owned())
}

fn parse_positive_duration(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::server::limits::MAX_BODY_BYTES;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    const TLS: [&str; 5] = [
        "serve",
        "--tls-cert-file",
        "tls.crt",
        "--tls-private-key-file",
        "tls.key",
    ];

    fn parse(flags: &[&str]) -> Result<Config, String> {
        let parsed = Cli::try_parse_from(TLS.iter().chain(flags));
        parsed
            .map(|cli| cli.serve.into_config())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_flags_are_the_servers_own() {
        let config = parse(&["--policy-file", "p.yaml"]).unwrap();
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::webhook()));
        assert_eq!(config.limits.max_body_bytes, MAX_BODY_BYTES);
    }

    #[test]
    fn the_policy_comes_from_one_place() {
        let file = parse(&["--policy-file", "p.yaml"]).unwrap().policy;
        assert!(
            matches!(file, PolicyLocation::File(file) if file == NamedFile::new("--policy-file", "p.yaml"))
        );
        let config_map = parse(&["--policy-configmap", "a/b", "--kubeconfig", "k"])
            .unwrap()
            .policy;
        assert!(
            matches!(config_map, PolicyLocation::ConfigMap { name, kubeconfig: Some(_) } if name.to_string() == "a/b")
        );
        for (flags, named) in [
            (&[][..], "--policy-file"),
            (
                &["--policy-file", "p", "--policy-configmap", "a/b"],
                "--policy-configmap",
            ),
            (&["--policy-file", "p", "--kubeconfig", "k"], "--kubeconfig"),
            (&["--policy-configmap", "no-slash"], "NAMESPACE/NAME"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }

    #[test]
    fn durations_are_written_with_their_unit() {
        for (text, expected) in [
            ("5s", Some(Duration::from_secs(5))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("500ms", Some(Duration::from_millis(500))),
            ("0s", Some(Duration::ZERO)),
            ("5", None),
            ("-5s", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        }
        assert!(parse(&["--policy-file", "p", "--shutdown-delay", "0s"]).is_ok());
        for flag in ["--reload-interval", "--handshake-timeout", "--body-timeout"] {
            let error = parse(&["--policy-file", "p", flag, "0s"]).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_longer_body_that_is_allowed_has_room() {
        let config = parse(&["--policy-file", "p", "--max-body-bytes", "100000000"]).unwrap();
        assert_eq!(config.limits.max_held_bytes, 100_000_000);
    }
}
