//! Follows the files that a server was started with, and tells how that goes: log, metrics, readiness.

use std::{fmt, time::Duration};

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Readiness, certificates::PolledCertificate, policy_file::PolledPolicy, polled_files::Poll,
    tls::ClientCaFile,
};
use crate::metrics::{Metrics, server::ReloadedFile};

/// What the readiness check of the certificates is called.
pub const CERTIFICATE_CHECK: &str = "certificate";

/// What the readiness check of the client CA is called, where the certificate's own is kept by another source.
const CLIENT_CA_CHECK: &str = "client-ca";

/// What the readiness check of the policy is called.
pub const POLICY_CHECK: &str = "policy";

/// The files, and whom to tell.
#[derive(Debug)]
pub struct Reloader {
    /// The serving certificate, if it comes from files.
    pub certificate: Option<PolledCertificate>,
    /// The CA of client certificates, if clients must have one.
    pub client_ca: Option<ClientCaFile>,
    /// The policy, if it comes from a file.
    pub policy: Option<PolledPolicy>,
    /// Where changes are counted.
    pub metrics: Arc<Metrics>,
    /// Where the checks are set.
    pub readiness: Readiness,
}

impl Reloader {
    /// Tells what was loaded at the start, and from then on looks at the files every `interval`, for ever: should it
    /// return, a bug kept it from going on.
    ///
    /// Drop the future to stop. Files are read on a thread for blocking work: a file system that hangs delays
    /// reloads, never a verdict.
    pub async fn run(self, interval: Duration) {
        let mut follower = self.follow(Timestamp::now());
        loop {
            tokio::time::sleep(interval).await;
            let look = tokio::task::spawn_blocking(move || {
                follower.look(Timestamp::now());
                follower
            });
            follower = match look.await {
                Ok(follower) => follower,
                Err(error) => {
                    // Only a panic in there, or the end of the runtime.
                    tracing::error!(%error, "files are no longer re-read");
                    return;
                }
            };
        }
    }

    /// Tells what was loaded at the start.
    pub fn follow(self, now: Timestamp) -> Follower {
        if let Some(policy) = &self.policy {
            self.metrics.policy.loaded("", policy.mode(), now);
            self.readiness.set(POLICY_CHECK, Ok(()));
        }
        let mut follower = Follower {
            files: self,
            serving_refused: None,
            client_ca_refused: None,
        };
        follower.tell_certificate(now);
        follower
    }
}

/// A [`Reloader`] that has begun.
#[derive(Debug)]
pub struct Follower {
    files: Reloader,
    serving_refused: Option<String>,
    client_ca_refused: Option<String>,
}

impl Follower {
    /// Looks at every file once, at `now`.
    pub fn look(&mut self, now: Timestamp) {
        let Reloader {
            certificate,
            client_ca,
            policy,
            metrics,
            readiness,
        } = &mut self.files;
        if let Some(certificate) = certificate {
            note_certificates(
                ReloadedFile::Serving,
                certificate.poll(),
                &mut self.serving_refused,
                metrics,
            );
        }
        if let Some(client_ca) = client_ca {
            note_certificates(
                ReloadedFile::ClientCa,
                client_ca.poll(),
                &mut self.client_ca_refused,
                metrics,
            );
        }
        if let Some(policy) = policy {
            match policy.poll() {
                Poll::Loaded => {
                    tracing::info!("the policy file changed, and the new policy is in force");
                    metrics.policy.loaded("", policy.mode(), now);
                    readiness.set(POLICY_CHECK, Ok(()));
                }
                Poll::Refused(error) => {
                    tracing::error!(%error, "the policy file was refused, the last good policy stays in force");
                    metrics.policy.refused();
                    readiness.pass_with_detail(
                        POLICY_CHECK,
                        format!("the last good policy stays in force: {error}"),
                    );
                }
                Poll::Unchanged => {}
            }
        }
        self.tell_certificate(now);
    }

    /// An expired certificate is not ready: no API server takes it, and a roll-out that brings it should
    /// stop.
    fn tell_certificate(&mut self, now: Timestamp) {
        let Reloader {
            certificate,
            metrics,
            readiness,
            ..
        } = &self.files;
        let Some(not_after) = certificate.as_ref().and_then(|it| it.resolver().not_after()) else {
            if let Some(refused) = &self.client_ca_refused {
                let detail = format!("the last good one stays: {refused}");
                readiness.pass_with_detail(CLIENT_CA_CHECK, detail);
            } else if self.files.client_ca.is_some() {
                readiness.set(CLIENT_CA_CHECK, Ok(()));
            }
            return;
        };
        metrics.server.certificate_expires(not_after);
        let refused: Vec<_> = [&self.serving_refused, &self.client_ca_refused]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        if not_after < now {
            let why = refused
                .first()
                .map(|refused| format!("; {refused}"))
                .unwrap_or_default();
            readiness.set(
                CERTIFICATE_CHECK,
                Err(format!(
                    "expired at {not_after}: renew the serving certificate{why}"
                )),
            );
        } else if refused.is_empty() {
            readiness.set(CERTIFICATE_CHECK, Ok(()));
        } else {
            let detail = format!(
                "the last good one stays, it expires at {not_after}: {}",
                refused.join("; ")
            );
            readiness.pass_with_detail(CERTIFICATE_CHECK, detail);
        }
    }
}

fn note_certificates<E: fmt::Display>(
    file: ReloadedFile,
    poll: Poll<E>,
    refused: &mut Option<String>,
    metrics: &Metrics,
) {
    match poll {
        Poll::Loaded => {
            tracing::info!(file = file.name(), "changed certificates were loaded");
            metrics.server.reloaded(file, true);
            *refused = None;
        }
        Poll::Refused(error) => {
            tracing::error!(file = file.name(), %error, "changed certificates were refused, the last good ones stay in use");
            metrics.server.reloaded(file, false);
            *refused = Some(error.to_string());
        }
        Poll::Unchanged => {}
    }
}
