//! A client that breaks the rules, by every verb there is: each attempt is refused, and told why.

mod early;
mod rules;
mod steps;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        api::Reply,
        leases::{Edit, Verb},
        schedule::Phase,
    },
    test,
};

pub(crate) use self::early::{longest_name, refused, victim, would_be_refused};

/// How long the attacked leases are valid: longer than any attack takes on the slowest machine.
pub(crate) const VALID_SECONDS: i64 = 600;
/// How long the leases are valid that a test waits for: the shortest that the policy allows.
const SHORT_SECONDS: i64 = 5;
/// `clockSlack` of the policy, by which a takeover may be early.
const SLACK_SECONDS: i64 = 1;

/// The tests of this file. The early takeovers in mode audit are among those of the policy.
pub(crate) fn tests() -> Vec<Test> {
    let phase = Phase::Attacked;
    let mut tests = Vec::new();
    for (verb, attack) in Attack::all() {
        tests.push(test(
            phase,
            attack.test_name("attacks::early_takeover", verb),
            move |world| async move {
                let leases = world
                    .leases(&format!("attack-{}-{}", attack.slug(), verb.slug()))
                    .await?;
                early::refused(world, &leases, verb, attack).await
            },
        ));
    }
    tests.push(test(
        Phase::Alone(0),
        "attacks::the_longest_review_is_judged",
        early::the_longest_review_is_judged,
    ));
    for verb in Verb::ALL {
        let slug = verb.slug();
        tests.push(test(
            phase,
            format!("attacks::takeover_after_expiry_passes::{slug}"),
            move |world| early::takeover_after_expiry_passes(world, verb),
        ));
        tests.push(test(
            phase,
            format!("attacks::wrong_count_is_refused::{slug}"),
            move |world| rules::wrong_count_is_refused(world, verb),
        ));
        tests.push(test(
            phase,
            format!("attacks::overflow_is_refused::{slug}"),
            move |world| rules::overflow_is_refused(world, verb),
        ));
    }
    tests.extend([
        test(
            phase,
            "attacks::takeover_of_a_young_blind_lease_is_refused",
            rules::young_blind_lease,
        ),
        test(
            phase,
            "attacks::duration_out_of_bounds_is_refused",
            rules::duration_out_of_bounds_is_refused,
        ),
        test(
            phase,
            "attacks::stamp_tampering_is_refused",
            rules::stamp_tampering_is_refused,
        ),
        test(
            phase,
            "attacks::untracked_elector_is_warned",
            rules::untracked_elector_is_warned,
        ),
        test(
            phase,
            "attacks::two_steps::clearing_the_renew_time_is_refused",
            steps::clearing_the_renew_time_is_refused,
        ),
        test(
            phase,
            "attacks::two_steps::a_stamp_forged_a_little_ahead_frees_nothing",
            steps::a_stamp_forged_a_little_ahead_frees_nothing,
        ),
    ]);
    tests
}

/// A way to take over early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// All fields as they should be, but for the time.
    Honest,
    /// renewTime an hour ahead.
    ClockAhead,
    /// renewTime an hour behind.
    ClockBehind,
    /// Nothing but the holder changes hands.
    HolderOnly,
    /// All stamps set back to long ago.
    ForgedStamps,
    /// An entry more that claims all fields since long ago.
    ForgedOwner,
    /// `managedFields: [{}]`.
    ClearedStamps,
}

impl Attack {
    const ALL: [Self; 7] = [
        Self::Honest,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::HolderOnly,
        Self::ForgedStamps,
        Self::ForgedOwner,
        Self::ClearedStamps,
    ];

    /// Every attack by every verb that can carry it. Server-side apply takes no managedFields (asserted among the
    /// stamps).
    pub(crate) fn all() -> impl Iterator<Item = (Verb, Self)> {
        Verb::ALL
            .into_iter()
            .flat_map(|verb| Self::ALL.map(|attack| (verb, attack)))
            .filter(|(verb, attack)| *verb != Verb::Apply || !attack.touches_stamps())
    }

    fn touches_stamps(self) -> bool {
        matches!(self, Self::ForgedStamps | Self::ForgedOwner | Self::ClearedStamps)
    }

    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBehind => "clock-behind",
            Self::HolderOnly => "holder-only",
            Self::ForgedStamps => "forged-stamps",
            Self::ForgedOwner => "forged-owner",
            Self::ClearedStamps => "cleared-stamps",
        }
    }

    pub(crate) fn test_name(self, group: &str, verb: Verb) -> String {
        format!("{group}::{}::{}", verb.slug(), self.slug())
    }

    /// The write itself, by `b`, on a lease that `a` holds.
    fn edit(self, lease: &Value, now: Timestamp) -> anyhow::Result<Edit> {
        let hour = SignedDuration::from_hours(1);
        let renewed = match self {
            Self::ClockAhead => now.checked_add(hour)?,
            Self::ClockBehind => now.checked_sub(hour)?,
            _ => now,
        };
        let edit = match self {
            Self::HolderOnly => Edit::spec("b", json!({"holderIdentity": "b"})),
            _ => Edit::spec("b", held("b", renewed, VALID_SECONDS, 1)),
        };
        let long_ago = || Value::from("2001-02-03T04:05:06Z");
        let mut entries = lease
            .pointer("/metadata/managedFields")
            .cloned()
            .context("no managedFields")?;
        let list = entries.as_array_mut().context("managedFields is no list")?;
        Ok(match self {
            Self::ForgedStamps => {
                for entry in list {
                    *entry.pointer_mut("/time").context("no time")? = long_ago();
                }
                edit.with_managed_fields(entries)
            }
            Self::ForgedOwner => {
                let mut extra = list.first().cloned().context("no entries")?;
                *extra.pointer_mut("/manager").context("no manager")? = "c".into();
                *extra.pointer_mut("/time").context("no time")? = long_ago();
                list.push(extra);
                edit.with_managed_fields(entries)
            }
            Self::ClearedStamps => edit.with_managed_fields(json!([{}])),
            _ => edit,
        })
    }
}

pub(crate) const LEASE: &str = "lock";

/// A held lease as client-go writes it.
pub(crate) fn held(holder: &str, at: Timestamp, seconds: i64, transitions: i64) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": format!("{at:.6}"),
        "renewTime": format!("{at:.6}"),
        "leaseTransitions": transitions,
    })
}

/// Checks that a reply is a denial by this rule.
pub(crate) fn ensure_denied(reply: &Reply, rule: &str) -> anyhow::Result<()> {
    ensure!(
        reply.code == 403,
        "expected 403, got {} {}",
        reply.code,
        reply.message()
    );
    ensure!(reply.reason() == "Forbidden", "reason is {:?}", reply.reason());
    let message = reply.message();
    ensure!(
        message.contains("denied the request"),
        "not a webhook's denial: {message}"
    );
    ensure!(
        message.contains(&format!("{rule}: ")),
        "the message does not name {rule}: {message}"
    );
    Ok(())
}

/// The seconds that a denial says are left.
pub(crate) fn seconds_left(message: &str) -> anyhow::Result<i64> {
    let (_, rest) = message
        .split_once("free in ")
        .with_context(|| format!("no seconds left in: {message}"))?;
    let (seconds, _) = rest
        .split_once(" s")
        .with_context(|| format!("no seconds left in: {message}"))?;
    Ok(seconds.parse()?)
}
