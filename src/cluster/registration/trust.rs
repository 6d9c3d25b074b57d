//! Whether the API server can trust what is served, by the `caBundle` that it has.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::server::tls;

/// Why a bundle does not do for what is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nothing is there: the API server then asks its own machine's authorities, which did not sign this.
    #[error("caBundle is empty")]
    Empty,
    /// No certificate is in it.
    #[error("caBundle holds no certificate")]
    NoCertificate,
    /// What is served does not lead to any of them.
    #[error("caBundle does not verify the certificate that is served: {0}")]
    Unverified(String),
}

/// Verifies `chain`, leaf first, as the API server does: for that name, at that instant, by the authorities in `bundle`
/// (PEM).
///
/// # Errors
/// [`Distrust`] says why the API server would not call, in words for people.
pub fn verify(
    bundle: &[u8],
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Distrust> {
    if bundle.is_empty() {
        return Err(Distrust::Empty);
    }
    let mut roots = RootCertStore::empty();
    // One that cannot be read does not spoil the others, as in Go's `AppendCertsFromPEM`.
    let readable = CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok);
    roots.add_parsable_certificates(readable);
    if roots.is_empty() {
        return Err(Distrust::NoCertificate);
    }
    let unverified = |error: &dyn std::error::Error| Distrust::Unverified(error.to_string());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .build()
        .map_err(|error| unverified(&error))?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Distrust::Unverified("it is empty".to_owned()));
    };
    verifier
        .verify_server_cert(leaf, intermediates, name, &[], now)
        .map_err(|error| unverified(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    const NAME: &str = "leasehold.leasehold-system.svc";

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Self {
                pem,
                issuer: Issuer::new(params, key),
            }
        }

        fn issue(&self) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027, 1, 1);
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &self.issuer).unwrap().der().clone()
        }
    }

    #[test]
    fn only_a_bundle_that_holds_the_issuer_is_trusted_for_the_name_and_in_time() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let chain = [new.issue()];
        let both = format!("{}{}", old.pem, new.pem);
        let broken = format!(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}",
            new.pem
        );
        let in_time = 1_780_000_000; // May 2026
        let verified = |bundle: &str, name: &'static str, second| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
            verify(
                bundle.as_bytes(),
                &chain,
                &ServerName::try_from(name).unwrap(),
                now,
            )
        };
        for bundle in [&new.pem, &both, &broken] {
            assert_eq!(verified(bundle, NAME, in_time), Ok(()));
        }
        assert_eq!(verified("", NAME, in_time), Err(Distrust::Empty));
        assert_eq!(verified("AAAA", NAME, in_time), Err(Distrust::NoCertificate));
        for (bundle, name, second) in [
            (&old.pem, NAME, in_time),
            (&new.pem, "someone.else.svc", in_time),
            (&new.pem, NAME, in_time + 400 * 86_400),
        ] {
            let outcome = verified(bundle, name, second);
            assert!(matches!(outcome, Err(Distrust::Unverified(_))), "{outcome:?}");
        }
    }
}
