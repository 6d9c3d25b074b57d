//! Makes CAs and serving certificates: ECDSA on P-256, each with a key and a serial number of its own.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::rotation::{AuthorityFacts, Validity};

/// How far `notBefore` lies back: an API server whose clock is behind takes the certificate nevertheless. The largest
/// honest mistake is a clock in another time zone, of up to 14 hours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// A certificate with its key.
pub(super) struct Issued {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    validity: Validity,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Issued {
    pub(super) fn certificate_pem(&self) -> String {
        to_pem(&self.certificate)
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub(super) struct IssueError(String);

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// A new CA, valid for `life` from `now` on.
///
/// # Errors
/// When the machine gives no randomness, or the time cannot be written in a certificate.
pub(super) fn authority(now: Timestamp, life: Duration) -> Result<Issued, IssueError> {
    let (key, serial) = key_and_serial()?;
    let mut params = CertificateParams::new(Vec::new())?;
    // A verifier looks an issuer up by its subject: it tells CAs apart.
    let tag: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Leasehold");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Leasehold webhook CA {tag}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let validity = set_validity(&mut params, now, life, None)?;
    let certificate = params.self_signed(&key)?.der().clone();
    Ok(Issued {
        certificate,
        key,
        validity,
    })
}

/// A new leaf for `dns_names` (the first names it), valid for `life` from `now` on, but not for longer than its CA.
///
/// # Errors
/// As for [`authority`], or when the CA's certificate cannot be read.
pub(super) fn leaf(
    issuer: &AuthorityFacts,
    issuer_key: KeyPair,
    dns_names: &[String],
    now: Timestamp,
    life: Duration,
) -> Result<Issued, IssueError> {
    let (key, serial) = key_and_serial()?;
    let mut params = CertificateParams::new(dns_names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Leasehold");
    // Names are in the extension; a common name has room for 64 characters only.
    params
        .distinguished_name
        .push(DnType::CommonName, "Leasehold webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let validity = set_validity(&mut params, now, life, Some(issuer.validity.not_after))?;
    let issuer = Issuer::from_ca_cert_der(&issuer.der, issuer_key)?;
    let certificate = params.signed_by(&key, &issuer)?.der().clone();
    Ok(Issued {
        certificate,
        key,
        validity,
    })
}

/// PEM of a certificate, in lines of 64 characters (RFC 7468).
pub(super) fn to_pem(der: &CertificateDer<'_>) -> String {
    // k8s-openapi's bytes are written in base64.
    let base64 = serde_json::to_value(k8s_openapi::ByteString(der.to_vec()));
    let base64 = base64.ok().and_then(|value| value.as_str().map(str::to_owned));
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in base64.unwrap_or_default().chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    life: Duration,
    at_most: Option<Timestamp>,
) -> Result<Validity, IssueError> {
    let out_of_range = |error: jiff::Error| IssueError(error.to_string());
    let not_before = now.checked_sub(BACKDATED).map_err(out_of_range)?;
    let not_after = now.checked_add(life).map_err(out_of_range)?;
    let not_after = at_most.map_or(not_after, |at_most| not_after.min(at_most));
    let date = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second())
            .map_err(|_| IssueError("the clock says that it is before 1970".to_owned()))?;
        Ok::<_, IssueError>((
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds),
            Timestamp::from_second(at.as_second()).map_err(out_of_range)?,
        ))
    };
    let ((written_before, not_before), (written_after, not_after)) = (date(not_before)?, date(not_after)?);
    params.not_before = written_before;
    params.not_after = written_after;
    Ok(Validity {
        not_before,
        not_after,
    })
}

/// A key, and a serial number that is the hash of its public half: as unlikely to be met twice as the key.
fn key_and_serial() -> Result<(KeyPair, Vec<u8>), IssueError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.key_identifier_method = rcgen::KeyIdMethod::Sha256;
    let mut serial = params.key_identifier(&key);
    // Positive, and no longer than 20 bytes (RFC 5280, 4.1.2.2), with a first byte that no encoding drops.
    serial.truncate(16);
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok((key, serial))
}
