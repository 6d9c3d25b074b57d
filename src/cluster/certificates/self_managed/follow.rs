//! What every replica does, elected or not: it serves what stands in the Secret, and reports so.

use super::{
    super::{
        api::ApiError,
        rotation::{Part, Report},
        secret::StoredSecret,
    },
    SelfManaged,
};

/// Attempts to write a report that others' writes came before.
const REPORT_ATTEMPTS: usize = 5;

impl SelfManaged {
    /// Reads the Secret, serves its leaf if it is another, and reports what is served.
    pub(super) async fn follow(&mut self) -> Result<Option<StoredSecret>, ApiError> {
        for _ in 0..REPORT_ATTEMPTS {
            let Some(secret) = self.objects.secret().await? else {
                return Ok(None);
            };
            let contents = secret.contents(&self.dns_names);
            if let Part::Good(authority) = &contents.authority {
                let not_after = authority.validity.not_after;
                self.metrics.certificates.authority_expires(not_after);
            }
            let offered = match &contents.leaf {
                Part::Good(leaf) => Some(Report {
                    serial: leaf.serial.clone(),
                    not_after: leaf.validity.not_after,
                }),
                Part::Absent | Part::Broken(_) => None,
            };
            let reported = contents.reports.get(&self.settings.replica);
            let report = if reported.is_none() {
                // Nobody knows of this replica: it makes itself known by what it serves, or is about to serve.
                self.serving.clone().or(offered)
            } else {
                if let Some(offered) = offered
                    && self.serving.as_ref() != Some(&offered)
                {
                    self.serve(&secret, offered);
                }
                self.serving.clone().filter(|serving| reported != Some(serving))
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

    fn serve(&mut self, secret: &StoredSecret, offered: Report) {
        // Good leaves make certificates.
        let Some(certificate) = secret.certificate() else {
            return;
        };
        self.resolver.replace(certificate);
        self.metrics.server.certificate_expires(offered.not_after);
        tracing::info!(serial = offered.serial, not_after = %offered.not_after, "certificates: a new leaf is served");
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
