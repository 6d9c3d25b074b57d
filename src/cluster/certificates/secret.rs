//! The Secret: what it holds, read into [`Contents`], and each change to it.
//!
//! Keys never leave this module but as a [`KeyPair`] for the issuer and a [`Certificate`] for the server, neither of
//! which can be printed; no text made here quotes what the Secret holds.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::X509Certificate;

use super::{
    issue::{Issued, to_pem},
    rotation::{AuthorityFacts, Contents, LeafFacts, Part, Report, Request, Validity},
};
use crate::server::Certificate;

/// The CA that issues leaves.
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
/// The CAs that are trusted still.
const RETIRING: &str = "retiring-ca.crt";
/// What is served; the names that every tool knows.
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";

/// What each replica serves: a JSON object of their names. Beside what it is about, so that one resourceVersion guards
/// both, and so that no right is needed for it that is not needed anyway.
const REPORTS: &str = "leasehold.dev/replicas";
/// `ca` or `leaf`: a rotation that somebody asks for.
pub(super) const REQUEST: &str = "leasehold.dev/rotate";

/// Most reports that are kept. Pods that were killed leave theirs until their leaf expires, and an API server takes 256
/// KiB of annotations (`TotalAnnotationSizeLimitB` in `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`): a report
/// takes some 100 bytes and the replica's name, which is at most 253. No installation has so many replicas.
const MAX_REPORTS: usize = 200;

/// A Secret of this type is nobody else's, and nobody tries to read it as another kind.
const TYPE: &str = "leasehold.dev/certificates";

/// The Secret as it was read or is to be written.
#[derive(Clone)]
pub(super) struct StoredSecret(Secret);

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecret")
            .field("resource_version", &self.0.metadata.resource_version)
            .finish_non_exhaustive()
    }
}

/// The annotation that asks for a rotation asks for something else.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its annotation {REQUEST} is neither ca nor leaf, so that nothing is rotated; annotate it with one of the two"
)]
pub(super) struct UnknownRequest;

/// A report as it is written down.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenReport {
    serial: String,
    not_after: Timestamp,
}

impl StoredSecret {
    /// A Secret that is not there yet.
    pub(super) fn new() -> Self {
        Self(Secret {
            metadata: ObjectMeta {
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/name".to_owned(),
                    "leasehold".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            ..Secret::default()
        })
    }

    /// A Secret from its JSON. None where it is not one.
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().map(Self)
    }

    /// As JSON, to be written under this name.
    pub(super) fn to_json(&self, namespace: &str, name: &str) -> Vec<u8> {
        let mut secret = self.0.clone();
        secret.metadata.namespace = Some(namespace.to_owned());
        secret.metadata.name = Some(name.to_owned());
        // Maps with text for keys, texts and numbers: nothing in it cannot be written as JSON.
        serde_json::to_vec(&secret).unwrap_or_default()
    }

    /// Whether it was read, as opposed to made here.
    pub(super) fn is_stored(&self) -> bool {
        self.0.metadata.resource_version.is_some()
    }

    /// What it holds; a leaf is for `dns_names`.
    pub(super) fn contents(&self, dns_names: &[String]) -> Contents {
        let authority = self.authority();
        let retiring = self.data(RETIRING).map(authorities).unwrap_or_default().0;
        let trusted = match &authority {
            Part::Good(authority) => Some(authority),
            Part::Absent | Part::Broken(_) => None,
        };
        let trusted: Vec<_> = trusted.into_iter().chain(&retiring).collect();
        let leaf = self.leaf(dns_names, &trusted);
        Contents {
            leaf,
            authority,
            reports: self.reports(),
            request: self.request().unwrap_or_default(),
            retiring,
        }
    }

    /// What is asked for. An error where that is neither of what can be.
    pub(super) fn request(&self) -> Result<Option<Request>, UnknownRequest> {
        match self.annotation(REQUEST) {
            None => Ok(None),
            Some("ca") => Ok(Some(Request::Authority)),
            Some("leaf") => Ok(Some(Request::Leaf)),
            Some(_) => Err(UnknownRequest),
        }
    }

    /// The CA's key, where [`Contents::authority`] is good.
    pub(super) fn authority_key(&self) -> Option<KeyPair> {
        let pem = std::str::from_utf8(self.data(AUTHORITY_KEY)?).ok()?;
        KeyPair::from_pem(pem).ok()
    }

    /// The leaf to serve, where [`Contents::leaf`] is good.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        Certificate::from_pem(self.data(LEAF)?, self.data(LEAF_KEY)?).ok()
    }

    /// With another CA, and these beside it.
    pub(super) fn with_authority(mut self, authority: &Issued, retiring: &[AuthorityFacts]) -> Self {
        self.put(AUTHORITY, authority.certificate_pem().into_bytes());
        self.put(AUTHORITY_KEY, authority.key_pem().into_bytes());
        self.annotate(REQUEST, None);
        self.with_retiring(retiring)
    }

    /// With another leaf.
    pub(super) fn with_leaf(mut self, leaf: &Issued) -> Self {
        self.put(LEAF, leaf.certificate_pem().into_bytes());
        self.put(LEAF_KEY, leaf.key_pem().into_bytes());
        if self.annotation(REQUEST) == Some("leaf") {
            self.annotate(REQUEST, None);
        }
        self
    }

    /// With these CAs trusted beside its own.
    pub(super) fn with_retiring(mut self, retiring: &[AuthorityFacts]) -> Self {
        if retiring.is_empty() {
            if let Some(data) = &mut self.0.data {
                data.remove(RETIRING);
            }
        } else {
            self.put(RETIRING, bundle(retiring).into_bytes());
        }
        self
    }

    /// With a replica's report, or without one. Reports that mean nothing any more at `now` go, and of too many those
    /// of others that will mean nothing soonest.
    pub(super) fn with_report(mut self, replica: &str, report: Option<Report>, now: Timestamp) -> Self {
        let mut reports = self.reports();
        reports.retain(|_, report| now < report.not_after);
        match report {
            Some(report) => reports.insert(replica.to_owned(), report),
            None => reports.remove(replica),
        };
        while reports.len() > MAX_REPORTS {
            let others = reports.iter().filter(|(name, _)| *name != replica);
            let Some((first, _)) = others.min_by_key(|(_, report)| report.not_after) else {
                break;
            };
            let first = first.clone();
            reports.remove(&first);
        }
        let written: BTreeMap<&String, WrittenReport> = reports
            .iter()
            .map(|(name, Report { serial, not_after })| {
                let written = WrittenReport {
                    serial: serial.clone(),
                    not_after: *not_after,
                };
                (name, written)
            })
            .collect();
        self.annotate(REPORTS, serde_json::to_string(&written).ok());
        self
    }

    fn authority(&self) -> Part<AuthorityFacts> {
        let broken = |why: &str| Part::Broken(why.to_owned());
        let (certificate, key) = match (self.data(AUTHORITY), self.data(AUTHORITY_KEY)) {
            (None, None) => return Part::Absent,
            (None, _) => return broken("ca.crt is missing"),
            (_, None) => return broken("ca.key is missing"),
            (Some(certificate), Some(key)) => (certificate, key),
        };
        let (mut authorities, all_read) = authorities(certificate);
        let (Some(authority), true, true) = (authorities.pop(), authorities.is_empty(), all_read) else {
            return broken("ca.crt is not one CA certificate");
        };
        let Some(key) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| KeyPair::from_pem(key).ok())
        else {
            return broken("ca.key is not a private key");
        };
        let is_its = parse(&authority.der).is_some_and(|certificate| {
            certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes()
        });
        if is_its {
            Part::Good(authority)
        } else {
            broken("ca.key is not the key of ca.crt")
        }
    }

    fn leaf(&self, dns_names: &[String], trusted: &[&AuthorityFacts]) -> Part<LeafFacts> {
        let (chain, key) = match (self.data(LEAF), self.data(LEAF_KEY)) {
            (None, None) => return Part::Absent,
            (None, _) => return Part::Broken("tls.crt is missing".to_owned()),
            (_, None) => return Part::Broken("tls.key is missing".to_owned()),
            (Some(chain), Some(key)) => (chain, key),
        };
        if let Err(unusable) = Certificate::from_pem(chain, key) {
            return Part::Broken(unusable.to_string());
        }
        let facts = CertificateDer::from_pem_slice(chain)
            .ok()
            .and_then(|der| leaf_facts(&der, dns_names, trusted));
        facts.map_or_else(
            || Part::Broken("tls.crt holds a certificate that cannot be read".to_owned()),
            Part::Good,
        )
    }

    fn reports(&self) -> BTreeMap<String, Report> {
        let written = self.annotation(REPORTS).unwrap_or("{}");
        // What cannot be read was written by somebody else, and the replicas report anew when theirs are missing.
        let written: BTreeMap<String, WrittenReport> = serde_json::from_str(written).unwrap_or_default();
        written
            .into_iter()
            .map(|(name, WrittenReport { serial, not_after })| (name, Report { serial, not_after }))
            .collect()
    }

    fn data(&self, key: &str) -> Option<&[u8]> {
        let data = self.0.data.as_ref()?;
        data.get(key).map(|ByteString(bytes)| bytes.as_slice())
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.0
            .data
            .get_or_insert_default()
            .insert(key.to_owned(), ByteString(value));
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.0.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    fn annotate(&mut self, name: &str, value: Option<String>) {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        match value {
            Some(value) => annotations.insert(name.to_owned(), value),
            None => annotations.remove(name),
        };
    }
}

/// The CA certificates in a PEM text, and whether it holds nothing else.
pub(super) fn authorities(pem: &[u8]) -> (Vec<AuthorityFacts>, bool) {
    let mut found = Vec::new();
    let mut all_read = true;
    for der in CertificateDer::pem_slice_iter(pem) {
        match der.ok().and_then(authority_facts) {
            Some(facts) => found.push(facts),
            None => all_read = false,
        }
    }
    let whole = all_read && !found.is_empty();
    (found, whole)
}

/// The PEM text of CA certificates.
pub(super) fn bundle<'a>(authorities: impl IntoIterator<Item = &'a AuthorityFacts>) -> String {
    authorities
        .into_iter()
        .map(|authority| to_pem(&authority.der))
        .collect()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn validity(certificate: &X509Certificate<'_>) -> Option<Validity> {
    let validity = certificate.validity();
    Some(Validity {
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

fn authority_facts(der: CertificateDer<'static>) -> Option<AuthorityFacts> {
    let certificate = parse(&der)?;
    let validity = validity(&certificate).filter(|_| certificate.is_ca())?;
    Some(AuthorityFacts { validity, der })
}

fn leaf_facts(
    der: &CertificateDer<'_>,
    dns_names: &[String],
    trusted: &[&AuthorityFacts],
) -> Option<LeafFacts> {
    let certificate = parse(der)?;
    let issuer = trusted.iter().find(|authority| {
        parse(&authority.der).is_some_and(|authority| {
            authority.subject() == certificate.issuer()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    });
    let named: Vec<&str> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| &extension.value.general_names)
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    Some(LeafFacts {
        serial: certificate.raw_serial_as_string().replace(':', ""),
        issuer: issuer.map(|authority| authority.der.clone()),
        validity: validity(&certificate)?,
        names_fit: dns_names.iter().all(|name| named.contains(&name.as_str())),
    })
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
