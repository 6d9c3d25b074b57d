//! Certificates and policy that change while serving. Each look at the files is a call: nothing waits for a
//! timer.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use leasehold::{
    metrics::Metrics,
    policy::{ActivePolicy, Mode},
    server::{
        CertificateFiles, NamedFile, Readiness, Server,
        policy_file::PolledPolicy,
        reload::{CERTIFICATE_CHECK, Follower, POLICY_CHECK, Reloader},
        tls::{self, ClientCaFile},
    },
};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;

use crate::harness::{Client, Issued, Pki, Protocol, Running, event, measure, patient, post, tls_connect};

/// A Secret's volume as the kubelet lays it out: each key is a symlink through `..data`, which is a symlink
/// to a directory of its own for each version, and is swapped by a rename.
struct Mount {
    directory: tempfile::TempDir,
    versions: u32,
}

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self {
            directory: tempfile::tempdir().unwrap(),
            versions: 0,
        };
        mount.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts another version in place, and removes the one before.
    fn swap(&mut self, files: &[(&str, &str)]) {
        let old = fs::read_link(self.path("..data")).ok();
        self.versions += 1;
        let version = format!("..2026_11_21_10_00_00.{}", self.versions);
        fs::create_dir(self.path(&version)).unwrap();
        for (name, content) in files {
            fs::write(self.path(&version).join(name), content).unwrap();
        }
        symlink(&version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.directory.path().join(old)).unwrap();
        }
    }

    fn swap_pair(&mut self, certificate: &str, key: &str) {
        self.swap(&[("tls.crt", certificate), ("tls.key", key)]);
    }

    fn certificate_files(&self) -> CertificateFiles {
        CertificateFiles {
            certificate: NamedFile::new("--tls-cert-file", self.path("tls.crt")),
            private_key: NamedFile::new("--tls-private-key-file", self.path("tls.key")),
        }
    }
}

/// A server whose certificate comes from a [`Mount`].
struct Rotating {
    mount: Mount,
    server: Running,
    follower: Follower,
    readiness: Readiness,
}

impl Rotating {
    async fn start(issued: &Issued, pki: Pki, client_ca: Option<&Mount>) -> Self {
        let mount = Mount::new(&[("tls.crt", &issued.certificate), ("tls.key", &issued.key)]);
        let certificate = mount.certificate_files().load().unwrap();
        let client_ca = client_ca
            .map(|ca| ClientCaFile::load(NamedFile::new("--client-ca-file", ca.path("ca.crt"))).unwrap());
        let tls = tls::server_config(
            certificate.resolver(),
            client_ca.as_ref().map(ClientCaFile::client_ca),
        )
        .unwrap();
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::waiting_for([CERTIFICATE_CHECK]);
        let reloader = Reloader {
            certificate: Some(certificate),
            client_ca,
            policy: None,
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
        };
        let follower = reloader.follow(Timestamp::now());
        let server = Server::new(measure, tls, patient(), Arc::clone(&metrics));
        Self {
            mount,
            server: Running::run(server, pki, metrics).await,
            follower,
            readiness,
        }
    }

    fn look(&mut self) {
        self.follower.look(Timestamp::now());
    }

    /// The certificate that a new handshake is shown.
    async fn presented(&self) -> CertificateDer<'static> {
        let config = self.server.pki.client(Protocol::Http2);
        let stream = tls_connect(self.server.address, config).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }
}

#[tokio::test]
async fn three_swaps_of_a_mounted_secret_are_each_followed_and_no_connection_is_lost() {
    let pki = Pki::new();
    let first = pki.issue();
    let mut rotating = Rotating::start(&first, pki, None).await;
    assert_eq!(rotating.presented().await, first.der());
    let mut connections = vec![rotating.server.connect(Protocol::Http1).await];
    for _ in 0..3 {
        let next = rotating.server.pki.issue();
        rotating.mount.swap_pair(&next.certificate, &next.key);
        rotating.look();
        assert_eq!(rotating.presented().await, next.der());
        connections.push(rotating.server.connect(Protocol::Http2).await);
    }
    for mut connection in connections {
        connection.assert_served().await;
    }
    rotating
        .server
        .assert_metric("leasehold_certificate_reloads_total{file=\"serving\",result=\"loaded\"} 3");
    rotating
        .server
        .assert_metric("leasehold_certificate_reloads_total{file=\"serving\",result=\"refused\"} 0");
}

#[tokio::test]
async fn a_certificate_renewed_for_the_same_key_is_followed() {
    let (pki, key) = (Pki::new(), KeyPair::generate().unwrap());
    let (first, renewed) = (pki.issue_for(&key), pki.issue_for(&key));
    assert_eq!(first.key, renewed.key);
    let mut rotating = Rotating::start(&first, pki, None).await;
    rotating.mount.swap_pair(&renewed.certificate, &renewed.key);
    rotating.look();
    assert_eq!(rotating.presented().await, renewed.der());
}

#[tokio::test]
async fn bad_files_are_refused_told_once_and_the_last_good_pair_stays_until_they_are_mended() {
    let pki = Pki::new();
    let good = pki.issue();
    let mut rotating = Rotating::start(&good, pki, None).await;
    let other = rotating.server.pki.issue();
    let (certificate, key) = (good.certificate.as_str(), good.key.as_str());
    let cut_off = &certificate[..certificate.len() / 2];
    for (count, (certificate, key, named)) in [
        (certificate, other.key.as_str(), "--tls-private-key-file"),
        (
            other.certificate.as_str(),
            key,
            "is not the key of the certificate in --tls-cert-file",
        ),
        ("", key, "holds no certificate"),
        (cut_off, key, "--tls-cert-file"),
        (certificate, "", "holds no private key"),
        (certificate, certificate, "holds no private key"),
    ]
    .into_iter()
    .enumerate()
    {
        rotating.mount.swap_pair(certificate, key);
        for _again in 0..2 {
            rotating.look();
        }
        assert_eq!(rotating.presented().await, good.der(), "{named}");
        let (ready, report) = rotating.readiness.report();
        assert!(
            ready && report.contains("the last good one stays") && report.contains(named),
            "{report}"
        );
        rotating.server.assert_metric(&format!(
            "leasehold_certificate_reloads_total{{file=\"serving\",result=\"refused\"}} {}",
            count + 1
        ));
        rotating.mount.swap_pair(&good.certificate, &good.key);
        rotating.look();
        assert_eq!(
            rotating.readiness.report().1,
            "[+]certificate ok\nreadyz check passed\n"
        );
    }
    // Gone altogether: the same.
    fs::remove_file(rotating.mount.path("..data")).unwrap();
    rotating.look();
    assert_eq!(rotating.presented().await, good.der());
    assert!(rotating.readiness.report().1.contains("cannot be read"));
}

#[tokio::test]
async fn an_expired_certificate_is_not_ready_and_its_end_is_a_metric() {
    let pki = Pki::new();
    let issued = pki.issue();
    let mut rotating = Rotating::start(&issued, pki, None).await;
    // rcgen says 4096-01-01 unless told otherwise: `date -u -d 4096-01-01 +%s`.
    rotating
        .server
        .assert_metric("leasehold_certificate_not_after_timestamp_seconds 67090118400");
    assert!(rotating.readiness.report().0);
    rotating.follower.look("4100-01-01T00:00:00Z".parse().unwrap());
    let (ready, report) = rotating.readiness.report();
    assert!(
        !ready && report.contains("[-]certificate failed: expired at 4096-01-01T00:00:00Z"),
        "{report}"
    );
}

#[tokio::test]
async fn a_client_ca_is_followed_as_well() {
    let (old, new) = (Pki::new(), Pki::new());
    let (by_old, by_new) = (old.issue(), new.issue());
    let mut ca = Mount::new(&[("ca.crt", &old.pem())]);
    let pki = Pki::new();
    let issued = pki.issue();
    let mut rotating = Rotating::start(&issued, pki, Some(&ca)).await;
    assert!(is_served(&rotating, &by_old).await && !is_served(&rotating, &by_new).await);
    ca.swap(&[("ca.crt", &format!("{}{}", old.pem(), new.pem()))]);
    rotating.look();
    assert!(is_served(&rotating, &by_old).await && is_served(&rotating, &by_new).await);
    for bad in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        ca.swap(&[("ca.crt", bad)]);
        rotating.look();
        assert!(rotating.readiness.report().1.contains("--client-ca-file"));
        assert!(is_served(&rotating, &by_old).await, "the last good one stays");
    }
    ca.swap(&[("ca.crt", &new.pem())]);
    rotating.look();
    assert!(!is_served(&rotating, &by_old).await && is_served(&rotating, &by_new).await);
    rotating
        .server
        .assert_metric("leasehold_certificate_reloads_total{file=\"client_ca\",result=\"loaded\"} 2");
    rotating
        .server
        .assert_metric("leasehold_certificate_reloads_total{file=\"client_ca\",result=\"refused\"} 2");
}

/// Whether a client with that certificate is served, on a new connection.
async fn is_served(rotating: &Rotating, own: &Issued) -> bool {
    let config = rotating.server.pki.client_with(Protocol::Http1, own);
    let Ok(mut client) = Client::connect(rotating.server.address, config, Protocol::Http1).await else {
        return false;
    };
    event("an answer or the refusal", client.try_send(post("four")))
        .await
        .is_ok()
}

#[test]
fn a_policy_file_is_followed_and_a_bad_one_kept_out() {
    let pki = Pki::new();
    let issued = pki.issue();
    let tls = Mount::new(&[("tls.crt", &issued.certificate), ("tls.key", &issued.key)]);
    let mut policy = Mount::new(&[("policy.yaml", "mode: audit")]);
    let polled = PolledPolicy::load(NamedFile::new("--policy-file", policy.path("policy.yaml"))).unwrap();
    let active = polled.active();
    let readiness = Readiness::waiting_for([CERTIFICATE_CHECK, POLICY_CHECK]);
    let metrics = Arc::new(Metrics::new());
    let reloader = Reloader {
        certificate: Some(tls.certificate_files().load().unwrap()),
        client_ca: None,
        policy: Some(polled),
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
    };
    let mut follower = reloader.follow(Timestamp::now());
    let mode = |active: &ActivePolicy| active.load().document().mode;
    assert_eq!(mode(&active), Mode::Audit);
    assert!(readiness.report().0);

    policy.swap(&[("policy.yaml", "mode: enforce")]);
    follower.look(Timestamp::now());
    assert_eq!(mode(&active), Mode::Enforce);

    policy.swap(&[("policy.yaml", "mode: audit\nmoed: off")]);
    follower.look(Timestamp::now());
    assert_eq!(mode(&active), Mode::Enforce, "refused whole");
    let (ready, report) = readiness.report();
    assert!(ready, "{report}");
    assert!(
        report.contains("[+]policy ok: the last good policy stays in force: --policy-file"),
        "{report}"
    );
    assert!(report.contains("line 2"), "{report}");
    assert!(
        metrics
            .encode()
            .unwrap()
            .contains("leasehold_policy_loads_total{result=\"refused\"} 1")
    );

    policy.swap(&[("policy.yaml", "mode: audit")]);
    follower.look(Timestamp::now());
    assert_eq!(mode(&active), Mode::Audit);
    assert!(readiness.report().1.contains("[+]policy ok\n"));
}
