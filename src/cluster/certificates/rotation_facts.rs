//! What a rotation is decided on: certificates as far as they matter, what the Secret holds, what was seen.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

/// How long certificates live, and how long before their end they are renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    /// From a CA's issue to its `notAfter`.
    pub authority: Duration,
    /// A CA is replaced this long before its `notAfter`.
    pub authority_renew_before: Duration,
    /// From a leaf's issue to its `notAfter`.
    pub leaf: Duration,
    /// A leaf is replaced this long before its `notAfter`.
    pub leaf_renew_before: Duration,
    /// How long every API server surely takes to use a `caBundle` that was patched, and every replica to look at the
    /// Secret.
    pub publish_wait: Duration,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub not_before: Timestamp,
    /// `notAfter`.
    pub not_after: Timestamp,
}

impl Validity {
    pub(super) fn holds(self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    pub(super) fn expired(self, now: Timestamp) -> bool {
        self.not_after <= now
    }
}

/// A CA certificate. Two are the same if their bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// How long it is valid.
    pub validity: Validity,
}

impl fmt::Debug for AuthorityFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityFacts")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A serving certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// Its serial number, in hexadecimal digits: every leaf has one of its own.
    pub serial: String,
    /// Which of the Secret's CAs signed it, if one did.
    pub issuer: Option<CertificateDer<'static>>,
    /// How long it is valid.
    pub validity: Validity,
    /// Whether it names what the API server dials.
    pub names_fit: bool,
}

/// Something that should stand in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<T> {
    /// It does not.
    Absent,
    /// It does, and cannot be used; the text says why, and quotes nothing.
    Broken(String),
    /// It does.
    Good(T),
}

/// What a replica says that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The leaf's serial number.
    pub serial: String,
    /// When that leaf expires: from then on the report means nothing.
    pub not_after: Timestamp,
}

impl From<&LeafFacts> for Report {
    fn from(leaf: &LeafFacts) -> Self {
        Self {
            serial: leaf.serial.clone(),
            not_after: leaf.validity.not_after,
        }
    }
}

/// A rotation that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Of the CA, and with it of the leaf.
    Authority,
    /// Of the leaf.
    Leaf,
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The CA that issues leaves, its key included.
    pub authority: Part<AuthorityFacts>,
    /// CAs that are trusted still.
    pub retiring: Vec<AuthorityFacts>,
    /// What is served.
    pub leaf: Part<LeafFacts>,
    /// What each replica reported last, by its name.
    pub reports: BTreeMap<String, Report>,
    /// What was asked for and not done yet.
    pub request: Option<Request>,
}

/// `caBundle` of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookBundle {
    /// Its CAs.
    pub authorities: Vec<AuthorityFacts>,
    /// Whether something in it is no CA certificate.
    pub broken: bool,
}

/// What was seen. The configuration must have been read before the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The Secret; None where there is none.
    pub secret: Option<Contents>,
    /// The configuration's webhooks; None where there is no configuration.
    pub webhooks: Option<Vec<WebhookBundle>>,
    /// For how long the observer has seen the webhooks as they are now.
    pub published_for: Duration,
    /// For how long the observer has seen the Secret's leaf.
    pub issued_for: Duration,
}
