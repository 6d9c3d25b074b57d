//! The flags of the serving certificate: files, or a Secret that Leasehold keeps by itself.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{ArgGroup, Args};

use super::{
    args::{parse_duration, parse_positive_duration},
    config::{CertificateSource, WatchedRegistration},
};
use crate::{
    cluster::{
        NamespacedName,
        certificates::{Settings, rotation::Lives},
        registration::{Expected, RegisteredWebhook},
    },
    server::{CertificateFiles, NamedFile},
};

/// Shortest Lease: what the policy's own `duration-out-of-bounds` takes.
const SHORTEST_LEASE: Duration = Duration::from_secs(5);

/// Where the serving certificate comes from: two files, or a Secret.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "TLS",
    group = ArgGroup::new("certificate").args(["tls_cert_file", "tls_secret"]).required(true)
)]
pub(super) struct CertificateArgs {
    /// The serving certificate: a PEM chain, the server's own certificate first. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_TLS_CERT_FILE",
        requires = "tls_private_key_file"
    )]
    tls_cert_file: Option<PathBuf>,

    /// The certificate's private key in PEM. Re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "LEASEHOLD_TLS_PRIVATE_KEY_FILE",
        requires = "tls_cert_file",
        conflicts_with = "tls_secret"
    )]
    tls_private_key_file: Option<PathBuf>,

    /// Instead of files: the Secret in which the replicas keep a CA and a certificate that they make and renew
    /// themselves. A Lease of the same name elects who writes
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "LEASEHOLD_TLS_SECRET",
        requires_all = ["webhook_configuration", "service"]
    )]
    tls_secret: Option<NamespacedName>,

    /// The ValidatingWebhookConfiguration that registers Leasehold. It is watched, and whatever is not as the
    /// manifests say is told; with --tls-secret, the replicas keep its every caBundle
    #[arg(long, value_name = "NAME", env = "LEASEHOLD_WEBHOOK_CONFIGURATION")]
    webhook_configuration: Option<String>,

    /// Restore the registration to what the manifests say when it was deleted or changed
    #[arg(
        long,
        env = "LEASEHOLD_REPAIR_REGISTRATION",
        requires = "webhook_configuration"
    )]
    repair_registration: bool,

    /// A namespace that the registration leaves out beside those of the manifests, so that this is not told as
    /// wrong; may be given several times
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "LEASEHOLD_EXCLUDED_NAMESPACES",
        value_delimiter = ',',
        requires = "webhook_configuration"
    )]
    excluded_namespace: Vec<String>,

    /// A webhook that a component adds to the registration, so that it is told when it is gone; with =NAMESPACE, one
    /// that it takes in by its name in place of a label. May be given several times
    #[arg(
        long,
        value_name = "NAME[=NAMESPACE]",
        env = "LEASEHOLD_REGISTERED_WEBHOOKS",
        value_delimiter = ',',
        requires = "webhook_configuration"
    )]
    registered_webhook: Vec<RegisteredWebhook>,

    /// The Service that the API server dials: what the certificate is made for
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "LEASEHOLD_SERVICE",
        requires = "tls_secret"
    )]
    service: Option<NamespacedName>,

    /// This replica's name, as no other has it: the pod's [default: the host name]
    #[arg(long, value_name = "NAME", env = "LEASEHOLD_REPLICA_NAME")]
    replica_name: Option<String>,

    /// How long a self-managed CA lives
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_CA_LIFE", default_value = "8760h", value_parser = parse_positive_duration)]
    tls_ca_life: Duration,

    /// How long before its end a self-managed CA is replaced; at least the life of a certificate
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_CA_RENEW_BEFORE", default_value = "2160h", value_parser = parse_positive_duration)]
    tls_ca_renew_before: Duration,

    /// How long a self-managed certificate lives
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_CERT_LIFE", default_value = "720h", value_parser = parse_positive_duration)]
    tls_cert_life: Duration,

    /// How long before its end a self-managed certificate is replaced
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_CERT_RENEW_BEFORE", default_value = "240h", value_parser = parse_positive_duration)]
    tls_cert_renew_before: Duration,

    /// How long every API server surely takes to use a caBundle that was patched. A rotation of the CA waits so
    /// long before it issues a certificate of the new CA, and before it drops the old one; at least twice
    /// --tls-poll-interval
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_PUBLISH_WAIT", default_value = "1m", value_parser = parse_duration)]
    tls_publish_wait: Duration,

    /// How often the Secret and caBundle are looked at
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_POLL_INTERVAL", default_value = "5s", value_parser = parse_positive_duration)]
    tls_poll_interval: Duration,

    /// How long the Lease that elects the Secret's writer is valid, in whole seconds
    #[arg(long, value_name = "DURATION", env = "LEASEHOLD_TLS_LEASE_DURATION", default_value = "15s", value_parser = parse_positive_duration)]
    tls_lease_duration: Duration,
}

impl CertificateArgs {
    /// Whether a client for the API server is needed.
    pub(super) fn is_self_managed(&self) -> bool {
        self.tls_secret.is_some()
    }

    /// Which registration is to be watched, and whether it may be repaired.
    /// `namespace` is where Leasehold is installed, by other flags.
    pub(super) fn registration(
        &self,
        namespace: Option<&NamespacedName>,
    ) -> anyhow::Result<Option<WatchedRegistration>> {
        let Some(name) = &self.webhook_configuration else {
            return Ok(None);
        };
        let namespace = self.service.as_ref().or(namespace);
        let namespace = namespace.map_or("leasehold-system", NamespacedName::namespace);
        let excluded: Vec<String> = self
            .excluded_namespace
            .iter()
            .map(|namespace| object_name("--excluded-namespace", namespace.clone()))
            .collect::<Result<_, _>>()?;
        for namespace in self
            .registered_webhook
            .iter()
            .filter_map(|it| it.namespace.clone())
        {
            object_name("--registered-webhook", namespace)?;
        }
        let expected = Expected::from_manifests(namespace, &excluded)?
            .with_registered(&self.registered_webhook)
            .map_err(|error| anyhow::anyhow!("--registered-webhook {error}"))?;
        Ok(Some(WatchedRegistration {
            name: object_name("--webhook-configuration", name.clone())?,
            expected,
            repair: self.repair_registration,
        }))
    }

    pub(super) fn into_source(self) -> anyhow::Result<CertificateSource> {
        let Self {
            tls_cert_file,
            tls_private_key_file,
            tls_secret,
            webhook_configuration,
            repair_registration: _,
            excluded_namespace: _,
            registered_webhook: _,
            service,
            replica_name,
            tls_ca_life,
            tls_ca_renew_before,
            tls_cert_life,
            tls_cert_renew_before,
            tls_publish_wait,
            tls_poll_interval,
            tls_lease_duration,
        } = self;
        let (Some(secret), Some(configuration), Some(service)) = (tls_secret, webhook_configuration, service)
        else {
            // clap lets through nothing but all of one kind.
            return Ok(CertificateSource::Files(CertificateFiles {
                certificate: NamedFile::new("--tls-cert-file", tls_cert_file.unwrap_or_default()),
                private_key: NamedFile::new(
                    "--tls-private-key-file",
                    tls_private_key_file.unwrap_or_default(),
                ),
            }));
        };
        shorter(
            ("--tls-ca-renew-before", tls_ca_renew_before),
            ("--tls-ca-life", tls_ca_life),
        )?;
        shorter(
            ("--tls-cert-renew-before", tls_cert_renew_before),
            ("--tls-cert-life", tls_cert_life),
        )?;
        ensure!(
            tls_cert_life <= tls_ca_renew_before,
            "--tls-ca-renew-before {tls_ca_renew_before:?}: shorter than --tls-cert-life {tls_cert_life:?}, so that a certificate could outlive its CA; give at least that"
        );
        let shortest_wait = tls_poll_interval.saturating_mul(2);
        ensure!(
            tls_publish_wait >= shortest_wait,
            "--tls-publish-wait {tls_publish_wait:?}: less than twice --tls-poll-interval {tls_poll_interval:?}, so that a CA could be dropped before every replica has looked; give at least {shortest_wait:?}"
        );
        ensure!(
            tls_lease_duration >= SHORTEST_LEASE && tls_lease_duration.subsec_nanos() == 0,
            "--tls-lease-duration {tls_lease_duration:?}: give whole seconds, at least {SHORTEST_LEASE:?}"
        );
        Ok(CertificateSource::SelfManaged(Box::new(Settings {
            secret,
            configuration: object_name("--webhook-configuration", configuration)?,
            service,
            replica: match replica_name {
                Some(name) => object_name("--replica-name", name)?,
                None => host_name()?,
            },
            lives: Lives {
                authority: tls_ca_life,
                authority_renew_before: tls_ca_renew_before,
                leaf: tls_cert_life,
                leaf_renew_before: tls_cert_renew_before,
                publish_wait: tls_publish_wait,
            },
            poll_interval: tls_poll_interval,
            lease_duration: tls_lease_duration,
        })))
    }
}

fn shorter((flag, value): (&str, Duration), (other_flag, other): (&str, Duration)) -> anyhow::Result<()> {
    ensure!(
        value < other,
        "{flag} {value:?}: not shorter than {other_flag} {other:?}, so that there would be no end of renewing; give less"
    );
    Ok(())
}

/// A name as an object's may be: it becomes part of a path and of a Lease.
fn object_name(flag: &str, name: String) -> anyhow::Result<String> {
    // Any namespace will do.
    if let Err(error) = format!("any/{name}").parse::<NamespacedName>() {
        bail!("{flag} {name}: {error}");
    }
    Ok(name)
}

/// What the kernel calls this machine: in a pod, the pod's name, unless that is longer than 63 characters.
fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("no --replica-name was given, and the host name cannot be read: give one")?;
    let name = name.trim().to_ascii_lowercase();
    object_name("--replica-name", name).context("the host name cannot be the replica's name: give one")
}
