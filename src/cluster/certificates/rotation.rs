//! What to do next about the certificates. Pure: no client, no clock, no keys.
//!
//! The state of a rotation is what the Secret and the ValidatingWebhookConfiguration hold, so that whoever comes next,
//! after a crash at any point, goes on where the last one stopped. A rotation of the CA is five steps that overlap:
//!
//! 1. [`Step::NewAuthority`]: the Secret gets a new CA; the old one is *retiring*, trusted still.
//! 2. [`Step::Publish`]: `caBundle` gets both, and [`Step::WaitForApiServers`] lets every API server learn of it.
//! 3. [`Step::IssueLeaf`]: the Secret gets a leaf of the new CA.
//! 4. [`Step::WaitForReplicas`]: every replica serves it, and reports so.
//! 5. [`Step::Retire`]: the Secret, and by another [`Step::Publish`] the `caBundle`, lose the old CA.
//!
//! A Secret that lost its retiring CAs, or was replaced by an older one, gets them back from `caBundle` by
//! [`Step::KeepTrusted`] before anything is taken out of there.
//!
//! **Invariant:** `caBundle` is never without the CA of a leaf that a replica serves. It holds because
//! - a leaf is issued only by a CA that stands in `caBundle` and in the Secret,
//! - a replica reports to the Secret before it serves its first leaf, and reports a later one only once it serves it;
//!   so a report that is not the current leaf's keeps every retiring CA,
//! - a replica serves a leaf of another CA only once that CA has stood in `caBundle` for long ([`may_replace`]), whatever
//!   somebody put into the Secret,
//! - each write carries the resourceVersion of what it was decided on, and the configuration is read before the Secret;
//!   so a writer that fell behind, or a second one, gets a conflict and not its way.
//!
//! How long something has been there is told by whoever observes it, on its own steady clock (as client-go judges a
//! lease): a crash only makes a wait longer.

#[path = "rotation_facts.rs"]
mod facts;
#[path = "rotation_serving.rs"]
mod serving;

use std::{collections::BTreeSet, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

pub use self::{
    facts::{
        AuthorityFacts, Contents, LeafFacts, Lives, Observed, Part, Report, Request, Validity, WebhookBundle,
    },
    serving::{Published, may_replace},
};

/// Most retiring CAs that a planned rotation may add to: what is broken is replaced nevertheless. One PEM certificate
/// is some 700 bytes, and every API server parses them for every webhook.
const MAX_RETIRING: usize = 8;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a CA and put it into the Secret, which keeps the leaf that it has.
    NewAuthority {
        /// Why.
        reason: Reason,
        /// The CAs that stay trusted beside it.
        retiring: Vec<AuthorityFacts>,
    },
    /// Have the Secret trust these as well as its own CA: `caBundle` has them, and a replica may serve by one of them.
    KeepTrusted {
        /// Whether the Secret lost one of them for sure: none of its own issued its leaf.
        repair: bool,
        /// Those that it has, and those that only `caBundle` has.
        retiring: Vec<AuthorityFacts>,
    },
    /// Put the Secret's CAs, and no other, into `caBundle` of every webhook.
    Publish {
        /// Whether a webhook had a `caBundle` that nobody meant it to have, or had lost its own.
        repair: bool,
    },
    /// Wait until every API server surely uses the `caBundle`.
    WaitForApiServers {
        /// How long still.
        remaining: Duration,
    },
    /// Have the Secret's CA issue a leaf into it.
    IssueLeaf {
        /// Why.
        reason: Reason,
    },
    /// Wait until every replica serves the Secret's leaf.
    WaitForReplicas {
        /// Those that do not yet, by their reports.
        behind: Vec<String>,
    },
    /// Have the Secret trust these beside its CA, and no longer all that are retiring.
    Retire {
        /// Those that stay.
        keep: Vec<AuthorityFacts>,
    },
    /// All is as it should be.
    Idle {
        /// When the next certificate is to be renewed.
        until: Timestamp,
    },
}

/// Why a certificate is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    Absent,
    /// The one that is there cannot be used.
    Broken(String),
    /// The one that is there is not valid now.
    NotValid,
    /// The one that is there names something else than what is dialled.
    OtherNames,
    /// The CA was replaced.
    OtherAuthority,
    /// The one that is there expires soon.
    ExpiresSoon,
    /// Somebody asked for it.
    Requested,
}

impl Reason {
    /// Whether something was wrong, as opposed to due or new.
    pub fn is_repair(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::NotValid)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is none"),
            Self::Broken(why) => write!(f, "the one that is there cannot be used: {why}"),
            Self::NotValid => f.write_str("the one that is there is not valid now"),
            Self::OtherNames => f.write_str("the one that is there does not name the Service"),
            Self::OtherAuthority => f.write_str("the CA was replaced"),
            Self::ExpiresSoon => f.write_str("the one that is there expires soon"),
            Self::Requested => f.write_str("it was asked for"),
        }
    }
}

/// What to do next, at `now` by the clock of the API server, which is who judges the certificates.
pub fn next_step(observed: &Observed, now: Timestamp, lives: &Lives) -> Step {
    let new_authority = |reason| Step::NewAuthority {
        reason,
        retiring: still_trusted(observed, now),
    };
    let Some(contents) = &observed.secret else {
        return new_authority(Reason::Absent);
    };
    let authority = match &contents.authority {
        Part::Absent => return new_authority(Reason::Absent),
        Part::Broken(why) => return new_authority(Reason::Broken(why.clone())),
        Part::Good(authority) if !authority.validity.holds(now) => return new_authority(Reason::NotValid),
        Part::Good(authority) => authority,
    };

    let (expired, trusted): (Vec<_>, Vec<_>) = contents
        .retiring
        .iter()
        .cloned()
        .partition(|retiring| retiring.validity.expired(now));
    if !expired.is_empty() {
        // No leaf of theirs can be served any more.
        return Step::Retire { keep: trusted };
    }
    if let Some(keep) = keep_trusted(observed, contents, now, lives) {
        return keep;
    }
    if let Some(publish) = publish(observed, contents, authority) {
        return publish;
    }

    if let Some(reason) = leaf_due(contents, authority, now, lives) {
        let remaining = lives.publish_wait.saturating_sub(observed.published_for);
        if may_be_served_by_another(contents, authority, now) && !remaining.is_zero() {
            return Step::WaitForApiServers { remaining };
        }
        return Step::IssueLeaf { reason };
    }

    if contents.retiring.len() < MAX_RETIRING
        && let Some(reason) = authority_due(contents, authority, now, lives)
    {
        return new_authority(reason);
    }

    if !contents.retiring.is_empty() {
        if all_serve_the_leaf(observed, contents, now, lives) {
            return Step::Retire { keep: Vec::new() };
        }
        return Step::WaitForReplicas {
            behind: behind(contents, now),
        };
    }
    let leaf_renewal = match &contents.leaf {
        Part::Good(leaf) => before(leaf.validity.not_after, lives.leaf_renew_before),
        // Would have been due.
        Part::Absent | Part::Broken(_) => now,
    };
    let authority_renewal = before(authority.validity.not_after, lives.authority_renew_before);
    Step::Idle {
        until: leaf_renewal.min(authority_renewal),
    }
}

/// Every CA under which a leaf may be served now, as far as can be seen.
fn still_trusted(observed: &Observed, now: Timestamp) -> Vec<AuthorityFacts> {
    let mut trusted: Vec<AuthorityFacts> = Vec::new();
    let in_secret = observed.secret.iter().flat_map(|contents| {
        let authority = match &contents.authority {
            Part::Good(authority) => Some(authority),
            Part::Absent | Part::Broken(_) => None,
        };
        authority.into_iter().chain(&contents.retiring)
    });
    // The Secret may have lost what `caBundle` still has.
    let published = observed
        .webhooks
        .iter()
        .flatten()
        .flat_map(|webhook| &webhook.authorities);
    for authority in in_secret.chain(published) {
        if !authority.validity.expired(now) && !trusted.contains(authority) {
            trusted.push(authority.clone());
        }
    }
    trusted
}

/// Unless all serve the Secret's leaf, and by one of its own CAs, whatever else `caBundle` has may be what a replica
/// serves by.
fn keep_trusted(observed: &Observed, contents: &Contents, now: Timestamp, lives: &Lives) -> Option<Step> {
    let repair = matches!(&contents.leaf, Part::Good(LeafFacts { issuer: None, .. }));
    if !repair && all_serve_the_leaf(observed, contents, now, lives) {
        return None;
    }
    let own = match &contents.authority {
        Part::Good(authority) => Some(authority),
        Part::Absent | Part::Broken(_) => None,
    };
    let mut retiring = still_trusted(observed, now);
    retiring.retain(|authority| Some(authority) != own);
    (retiring.len() > contents.retiring.len()).then_some(Step::KeepTrusted { repair, retiring })
}

fn publish(observed: &Observed, contents: &Contents, authority: &AuthorityFacts) -> Option<Step> {
    let wanted: BTreeSet<&[u8]> = std::iter::once(authority)
        .chain(&contents.retiring)
        .map(|authority| authority.der.as_ref())
        .collect();
    let mut differs = false;
    let mut repair = false;
    for webhook in observed.webhooks.iter().flatten() {
        let published: BTreeSet<&[u8]> = webhook
            .authorities
            .iter()
            .map(|authority| authority.der.as_ref())
            .collect();
        if webhook.broken || published != wanted {
            differs = true;
            // A rotation only adds to what the leaf's CA already is part of, and only removes what is not wanted.
            repair |= webhook.broken
                || matches!(&contents.leaf, Part::Good(LeafFacts { issuer: Some(issuer), .. })
                    if !published.contains(issuer.as_ref()));
        }
    }
    differs.then_some(Step::Publish { repair })
}

fn leaf_due(
    contents: &Contents,
    authority: &AuthorityFacts,
    now: Timestamp,
    lives: &Lives,
) -> Option<Reason> {
    let leaf = match &contents.leaf {
        Part::Absent => return Some(Reason::Absent),
        Part::Broken(why) => return Some(Reason::Broken(why.clone())),
        Part::Good(leaf) => leaf,
    };
    if !leaf.validity.holds(now) {
        Some(Reason::NotValid)
    } else if leaf.issuer.as_ref() != Some(&authority.der) {
        Some(Reason::OtherAuthority)
    } else if !leaf.names_fit {
        Some(Reason::OtherNames)
    } else if before(leaf.validity.not_after, lives.leaf_renew_before) <= now
        && leaf.validity.not_after < leaf_end(authority, now, lives)
    {
        Some(Reason::ExpiresSoon)
    } else {
        (contents.request == Some(Request::Leaf)).then_some(Reason::Requested)
    }
}

/// When a leaf would expire that `authority` issued now: it does not outlive its CA. In the CA's last days that is no
/// later than the one that is there, and the next step is a new CA. Where it is later it comes first: the one that is
/// there might not last until the API servers know a new CA.
fn leaf_end(authority: &AuthorityFacts, now: Timestamp, lives: &Lives) -> Timestamp {
    let by_its_own = SignedDuration::try_from(lives.leaf)
        .ok()
        .and_then(|life| now.checked_add(life).ok())
        .unwrap_or(Timestamp::MAX);
    by_its_own.min(authority.validity.not_after)
}

fn authority_due(
    contents: &Contents,
    authority: &AuthorityFacts,
    now: Timestamp,
    lives: &Lives,
) -> Option<Reason> {
    if before(authority.validity.not_after, lives.authority_renew_before) <= now {
        Some(Reason::ExpiresSoon)
    } else {
        (contents.request == Some(Request::Authority)).then_some(Reason::Requested)
    }
}

/// Whether a replica may serve a leaf of another CA than the current one, and be trusted with it: then an API server
/// that does not know the current one yet would be cut off by a leaf of it.
fn may_be_served_by_another(contents: &Contents, authority: &AuthorityFacts, now: Timestamp) -> bool {
    match &contents.leaf {
        Part::Good(leaf) => {
            !leaf.validity.expired(now)
                && leaf.issuer.as_ref() != Some(&authority.der)
                && !contents.retiring.is_empty()
        }
        Part::Absent | Part::Broken(_) => !contents.retiring.is_empty(),
    }
}

/// Whether every replica serves the Secret's leaf. The wait is for replicas whose reports were lost with a Secret: they
/// have looked at the new one by then.
fn all_serve_the_leaf(observed: &Observed, contents: &Contents, now: Timestamp, lives: &Lives) -> bool {
    behind(contents, now).is_empty()
        && !contents.reports.is_empty()
        && observed.issued_for >= lives.publish_wait
}

/// The replicas that serve, for all that is known, another leaf than the Secret's.
fn behind(contents: &Contents, now: Timestamp) -> Vec<String> {
    let current = match &contents.leaf {
        Part::Good(leaf) => Some(leaf.serial.as_str()),
        Part::Absent | Part::Broken(_) => None,
    };
    contents
        .reports
        .iter()
        .filter(|(_, report)| Some(report.serial.as_str()) != current && now < report.not_after)
        .map(|(name, _)| name.clone())
        .collect()
}

fn before(instant: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| instant.checked_sub(duration).ok())
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rotation_model.rs"]
mod model;
