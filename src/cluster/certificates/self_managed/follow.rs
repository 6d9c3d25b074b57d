//! What every replica does, elected or not: it serves what stands in the Secret, and reports so.

use std::time::Instant;

use super::{
    super::{
        api::ApiError,
        rotation::{Contents, LeafFacts, Part, Published, Report, may_replace},
        secret::StoredSecret,
    },
    SelfManaged, bundles,
};

/// Attempts to write a report that others' writes came before.
const REPORT_ATTEMPTS: usize = 5;

impl SelfManaged {
    /// Reads the Secret, serves its leaf if it is another and may be served, and reports what is served.
    pub(super) async fn follow(&mut self) -> Result<Option<StoredSecret>, ApiError> {
        // Before the Secret: see the invariant of `rotation`.
        let published = self.published().await;
        for _ in 0..REPORT_ATTEMPTS {
            let Some(secret) = self.objects.secret().await? else {
                return Ok(None);
            };
            let contents = secret.contents(&self.dns_names);
            if let Part::Good(authority) = &contents.authority {
                let not_after = authority.validity.not_after;
                self.metrics.certificates.authority_expires(not_after);
            }
            self.another_authority = self.is_served_by_another(&contents);
            let offered = match &contents.leaf {
                Part::Good(leaf) => Some(leaf),
                Part::Absent | Part::Broken(_) => None,
            };
            let reported = contents.reports.get(&self.settings.replica);
            let report = if reported.is_none() {
                // Nobody knows of this replica: it makes itself known by what it serves, or is about to serve.
                self.serving.as_ref().or(offered).map(Report::from)
            } else {
                if let Some(offered) = offered {
                    self.offer(&secret, offered, published.as_ref());
                }
                let serving = self.serving.as_ref().map(Report::from);
                serving.filter(|serving| reported != Some(serving))
            };
            let Some(report) = report else {
                return Ok(Some(secret));
            };
            let now = self.objects.now();
            let reporting = secret.with_report(&self.settings.replica, Some(report), now);
            match self.objects.write_secret(&reporting).await {
                // Look again: what is reported for the first time is served now.
                Ok(_) | Err(ApiError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Others write as fast. What is served and reported is safe, if late.
        Err(ApiError::Conflict {
            what: "the certificates' Secret",
        })
    }

    /// What the API servers trust, where it matters: while the CA of what is served is not the Secret's. None: it does
    /// not, or that cannot be read now.
    async fn published(&mut self) -> Option<Published> {
        if !self.another_authority {
            return None;
        }
        match self.objects.configuration().await {
            Ok(configuration) => {
                let version = configuration
                    .as_ref()
                    .map(|it| it.metadata.resource_version.clone());
                Some(Published {
                    webhooks: configuration.as_ref().map(bundles),
                    seen_for: self.known.look(version, Instant::now()),
                })
            }
            Err(error) => {
                tracing::debug!(%error, "certificates: what the API servers trust is not known");
                None
            }
        }
    }

    fn is_served_by_another(&self, contents: &Contents) -> bool {
        let own = match &contents.authority {
            Part::Good(authority) => Some(&authority.der),
            Part::Absent | Part::Broken(_) => None,
        };
        self.serving
            .as_ref()
            .is_some_and(|serving| serving.issuer.as_ref() != own)
    }

    /// Serves a leaf, if it is another than the one that is served and may be served.
    fn offer(&mut self, secret: &StoredSecret, offered: &LeafFacts, published: Option<&Published>) {
        let mut wait = None;
        if let Some(serving) = &self.serving {
            if serving.serial == offered.serial {
                return;
            }
            let now = self.objects.now();
            if !may_replace(serving, offered, published, now, &self.settings.lives) {
                wait = Some(format!(
                    "the leaf in Secret {} is of a CA that the API servers may not know yet; the one before is served on",
                    self.settings.secret
                ));
            }
        }
        let waits = wait.is_some();
        if let Some(news) = self.leaf_warning.news(wait) {
            tracing::info!("certificates: {news}");
        }
        if !waits {
            self.serve(secret, offered.clone());
        }
    }

    fn serve(&mut self, secret: &StoredSecret, offered: LeafFacts) {
        // Good leaves make certificates.
        let Some(certificate) = secret.certificate() else {
            return;
        };
        self.resolver.replace(certificate);
        self.metrics
            .server
            .certificate_expires(offered.validity.not_after);
        tracing::info!(serial = offered.serial, not_after = %offered.validity.not_after, "certificates: a new leaf is served");
        self.serving = Some(offered);
        self.served.send_replace(true);
        self.tell_readiness();
    }

    /// Best effort: who is killed instead leaves a Lease that expires, and a report that holds up nothing but the end
    /// of a CA that is not used any more.
    pub(super) async fn leave(&mut self) {
        if let Ok(Some(lease)) = self.objects.lease().await
            && let Some(free) = self.election.release(&lease)
        {
            let _ = self.objects.update_lease(&free).await;
        }
        for _ in 0..REPORT_ATTEMPTS {
            let Ok(Some(secret)) = self.objects.secret().await else {
                return;
            };
            let now = self.objects.now();
            let without = secret.with_report(&self.settings.replica, None, now);
            match self.objects.write_secret(&without).await {
                Err(ApiError::Conflict { .. }) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
