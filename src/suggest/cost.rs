//! What an override costs in protection, and what none is suggested for.

use super::{Cause, Easing};
use crate::policy::RuleName;

/// The rules whose denials are never excused unless somebody says so. Each of them fires only for what is provably an
/// attack or a bug, and no correct elector is harmed by the refusal:
///
/// - `takeover-before-expiry`, where the API server's stamps prove it: two leaders at once. The candidate gets the lease
///   once it has expired. (By the old holder's word alone it is no proof, and excused.)
/// - `transition-overflow`: the write would lock the lease for ever.
/// - `stamp-tampered`: no elector does it, and every guard is blind after it.
/// - `foreign-release`: the writer is provably not the holder. The successor leads on.
pub const NEVER_EXCUSED: [&str; 4] = [
    "takeover-before-expiry",
    "transition-overflow",
    "stamp-tampered",
    "foreign-release",
];

/// Whether a denial of this rule is one of an attack or a bug.
pub fn never_excused(rule: RuleName, cause: Cause) -> bool {
    NEVER_EXCUSED.contains(&rule.as_str()) && cause != Cause::Claimed
}

/// What an override costs in protection, in one sentence.
pub fn cost(easing: Easing) -> &'static str {
    let by_rule = of_rule(easing.rule());
    if !easing.still_denies() {
        return by_rule;
    }
    match (easing.rule().as_str(), easing.bounds()) {
        ("takeover-before-expiry", _) => {
            "a takeover that only the old holder's renewTime calls early passes."
        }
        ("transition-not-counted", _) => {
            "where nobody counts, two terms of these leases cannot be told apart."
        }
        (_, (Some(_), None)) => "each slow request may change who leads.",
        (_, (None, Some(_))) => "after a crash nobody leads for as long as the duration says.",
        (_, (Some(_), Some(_))) => {
            "each slow request may change who leads, or nobody leads for long after a crash."
        }
        (_, (None, None)) => {
            "a long duration, after which nobody leads for long after a crash, is only warned of."
        }
    }
}

/// What it costs if the rule only warns.
fn of_rule(rule: RuleName) -> &'static str {
    match rule.as_str() {
        "takeover-before-expiry" => "two leaders at once: nothing stops an early takeover of these leases.",
        "transition-not-counted" => {
            "the second of two candidates that both believe they won is not refused, and terms cannot be told apart."
        }
        "transition-overflow" => "one write can lock these leases for ever.",
        "transition-miscounted" => "two terms of these leases may look like one.",
        "duration-out-of-bounds" => {
            "a lease without a duration is free to all, and a very short or long one is only warned of."
        }
        "stamp-tampered" => "a write can remove the stamps by which an early takeover is told.",
        "foreign-release" => "another pod can clear a live lease, and a third take it at once.",
        "foreign-write" => "another pod can write a lease in its holder's name.",
        "deleted-while-held" => "a live lease can be deleted and created anew, around every other rule.",
        "recreated-early" => "a lease that was deleted while it was held can be created anew too early.",
        "acquire-time-stale" => "acquireTime of these leases may name the term of somebody else.",
        "renew-time-regressed" => "renewTime of these leases may go back.",
        "clock-skewed" => "writers of these leases may have wrong clocks.",
        "shared-identity" => "two pods may write these leases under one identity.",
        "flapping" => "these leases may change hands often.",
        _ => "the rule only warns for these leases.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::CATALOGUE;

    #[test]
    fn every_rule_has_a_sentence_of_its_own() {
        let mut sentences: Vec<_> = CATALOGUE.iter().map(|entry| of_rule(entry.name)).collect();
        assert!(
            sentences
                .iter()
                .all(|sentence| !sentence.starts_with("the rule only warns"))
        );
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), CATALOGUE.len());
    }

    #[test]
    fn every_rule_that_is_never_excused_exists() {
        assert!(
            NEVER_EXCUSED
                .into_iter()
                .all(|name| RuleName::find(name).is_some())
        );
    }

    #[test]
    fn what_only_a_client_says_is_no_proof() {
        let rule = RuleName::find("takeover-before-expiry").unwrap();
        assert!(never_excused(rule, Cause::Other));
        assert!(!never_excused(rule, Cause::Claimed));
    }
}
