//! What the flags mean when taken together.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::ensure;

use super::args::{LimitArgs, PolicyArgs, ServeArgs};
use crate::{
    audit::AuditLogTarget,
    cluster::{NamespacedName, certificates::Settings, registration::Expected},
    server::{CertificateFiles, Limits, NamedFile},
};

/// Where the policy comes from.
#[derive(Debug)]
pub(super) enum PolicyLocation {
    ConfigMap(NamespacedName),
    File(NamedFile),
}

/// Where the serving certificate comes from.
#[derive(Debug)]
pub(super) enum CertificateSource {
    Files(CertificateFiles),
    SelfManaged(Box<Settings>),
}

/// The registration to watch.
#[derive(Debug)]
pub(super) struct WatchedRegistration {
    pub(super) name: String,
    pub(super) expected: Expected,
    /// Whether it may be repaired.
    pub(super) repair: bool,
}

/// What the flags mean: every combination that can be held is one that can be served.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) certificate: CertificateSource,
    pub(super) registration: Option<WatchedRegistration>,
    /// Where the API server is, for whatever needs it.
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) client_ca: Option<NamedFile>,
    pub(super) policy: PolicyLocation,
    pub(super) webhook_address: ListenAddress,
    pub(super) admin_address: ListenAddress,
    pub(super) audit_log: Option<AuditLogTarget>,
    /// Whether denials are told by Events, where there is a cluster.
    pub(super) events: bool,
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
    pub(super) fn into_config(self) -> anyhow::Result<Config> {
        // Every field is named, so that a flag that nobody heeds does not compile.
        let Self {
            certificate,
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
            no_events,
            log_level: _,
            log_format: _,
            shutdown_delay,
            shutdown_grace_period,
            reload_interval,
            limits,
        } = self;
        let policy = match (policy_file, policy_configmap) {
            (_, Some(name)) => PolicyLocation::ConfigMap(name),
            // The group lets exactly one of the two through.
            (file, None) => PolicyLocation::File(NamedFile::new("--policy-file", file.unwrap_or_default())),
        };
        let registration = certificate.registration(match &policy {
            PolicyLocation::ConfigMap(name) => Some(name),
            PolicyLocation::File(_) => None,
        })?;
        ensure!(
            kubeconfig.is_none()
                || certificate.is_self_managed()
                || registration.is_some()
                || matches!(policy, PolicyLocation::ConfigMap(_)),
            "--kubeconfig: with --policy-file and certificate files nothing asks the API server; leave it out"
        );
        Ok(Config {
            registration,
            certificate: certificate.into_source()?,
            kubeconfig,
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
            events: !no_events,
            shutdown_delay,
            reload_interval,
            limits: limits.into_limits(shutdown_grace_period),
        })
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{
            AUDIT_LOG_CLOSE,
            in_use::{CERTIFICATES_CLOSE, EVENTS_CLOSE},
        },
        *,
    };
    use crate::{cli::serve::args::parse_duration, server::limits::MAX_BODY_BYTES};

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
        parse_all(&[&TLS, flags].concat())
    }

    fn parse_all(flags: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from(flags).map_err(|error| error.to_string())?;
        cli.serve.into_config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_certificate_comes_from_one_place() {
        const SECRET: [&str; 9] = [
            "serve",
            "--tls-secret",
            "a/certificates",
            "--webhook-configuration",
            "guard",
            "--service",
            "a/guard",
            "--policy-file",
            "p",
        ];
        let with = |flags: &[&'static str]| parse_all(&[&SECRET, flags].concat());
        let files = parse(&["--policy-file", "p"]).unwrap().certificate;
        assert!(matches!(files, CertificateSource::Files(_)));
        let config = with(&["--kubeconfig", "k", "--replica-name", "guard-0"]).unwrap();
        let CertificateSource::SelfManaged(settings) = config.certificate else {
            panic!("not self-managed");
        };
        assert_eq!(
            settings.dns_names(),
            ["guard.a.svc", "guard.a.svc.cluster.local", "guard.a"]
        );
        assert_eq!(settings.replica, "guard-0");
        assert!(config.kubeconfig.is_some());
        assert!(with(&[]).is_ok(), "the host's name is the replica's");
        assert!(with(&["--tls-publish-wait", "10s"]).is_ok());
        for (flags, named) in [
            (&["--tls-cert-file", "c"][..], "--tls-cert-file"),
            (&["--replica-name", "a/b"], "--replica-name"),
            (&["--tls-cert-life", "240h"], "--tls-cert-renew-before"),
            (&["--tls-ca-life", "2160h"], "--tls-ca-renew-before"),
            (&["--tls-cert-life", "2161h"], "--tls-ca-renew-before"),
            (&["--tls-publish-wait", "9s"], "--tls-publish-wait"),
            (&["--tls-publish-wait", "9s"], "--tls-poll-interval"),
            (&["--tls-poll-interval", "31s"], "--tls-publish-wait"),
            (&["--tls-lease-duration", "4s"], "--tls-lease-duration"),
            (&["--tls-lease-duration", "5500ms"], "--tls-lease-duration"),
        ] {
            let error = with(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
        for (flags, named) in [
            (&SECRET[..3], "--webhook-configuration"),
            (
                &["serve", "--tls-cert-file", "c", "--policy-file", "p"],
                "--tls-private-key-file",
            ),
            (&["serve", "--policy-file", "p"], "--tls-cert-file"),
        ] {
            let error = parse_all(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }

    #[test]
    fn the_defaults_of_the_flags_are_the_servers_own() {
        let config = parse(&["--policy-file", "p.yaml"]).unwrap();
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::webhook()));
        assert_eq!(config.limits.max_body_bytes, MAX_BODY_BYTES);
    }

    #[test]
    fn the_manifests_leave_time_for_the_longest_shutdown() {
        let config = parse(&["--policy-file", "p.yaml"]).unwrap();
        let longest = config.shutdown_delay
            + config.limits.grace_period
            + EVENTS_CLOSE
            + CERTIFICATES_CLOSE
            + AUDIT_LOG_CLOSE
            + Limits::admin().grace_period;
        for manifest in [
            include_str!("../../../manifests/base/deployment.yaml"),
            include_str!("../../../manifests/helm/leasehold/templates/deployment.yaml"),
        ] {
            let value = |key: &str| {
                let mut lines = manifest.lines().map(str::trim);
                lines.find_map(|line| line.strip_prefix(key)).map(str::trim)
            };
            let period = value("terminationGracePeriodSeconds:").unwrap();
            let period = Duration::from_secs(period.parse().unwrap());
            assert!(period > longest, "{period:?} for {longest:?}");
            // As the manifests set it, or do not.
            assert_eq!(
                value("- --shutdown-delay=").map(|delay| parse_duration(delay).unwrap()),
                Some(config.shutdown_delay)
            );
            assert_eq!(value("- --shutdown-grace-period="), None);
        }
    }

    #[test]
    fn the_policy_comes_from_one_place() {
        let file = parse(&["--policy-file", "p.yaml"]).unwrap().policy;
        assert!(
            matches!(file, PolicyLocation::File(file) if file == NamedFile::new("--policy-file", "p.yaml"))
        );
        let config = parse(&["--policy-configmap", "a/b", "--kubeconfig", "k"]).unwrap();
        assert!(matches!(config.policy, PolicyLocation::ConfigMap(name) if name.to_string() == "a/b"));
        assert!(config.kubeconfig.is_some());
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
    fn what_components_registered_must_be_what_they_can() {
        let with = |flag: &str| {
            let registration = ["--policy-configmap", "a/b", "--webhook-configuration", "guard"];
            parse(&[&registration[..], &["--registered-webhook", flag]].concat())
        };
        assert!(with("closed.leases.leasehold.dev=shop,closed.leases.leasehold.dev=bank").is_ok());
        for (flag, said) in [
            ("closed", "--registered-webhook closed: no component registers it"),
            (
                "annotation-locks.leasehold.dev=shop",
                "--registered-webhook annotation-locks.leasehold.dev=shop: it takes in no namespaces by name",
            ),
            ("closed.leases.leasehold.dev=A_B", "--registered-webhook A_B: "),
        ] {
            let error = with(flag).unwrap_err();
            assert!(error.contains(said), "{flag}: {error}");
        }
        let error = parse(&["--policy-file", "p", "--registered-webhook", "x"]).unwrap_err();
        assert!(error.contains("--webhook-configuration"), "{error}");
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
