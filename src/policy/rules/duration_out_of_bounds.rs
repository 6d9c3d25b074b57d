//! `duration-out-of-bounds`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Ownership, Purpose, Tolerance},
    policy::{
        Action, Seconds,
        in_process::{Check, InProcess, Setting, words},
    },
};

/// The duration that electors write when they release (client-go `release()` in `tools/leaderelection`; fabric8 and others
/// with the holder still named). It says nothing of how long they would hold the lease.
const RELEASED: i32 = 1;

settings_group! {
    /// Durations that are long, and within the bounds.
    pub struct Long {
        /// A duration over this one is long.
        after: Seconds = Seconds::new(3600),
        /// What a long duration leads to. At most the rule's `action`.
        action: Action = Action::Warn,
    }
}

rule_settings! {
    /// A held lease with no duration, or with a new one outside the policy's bounds.
    ///
    /// A held election without leaseDurationSeconds is free to all: every elector reads it as expired. A very short
    /// duration turns each slow request into a change of leader. A long one leaves nobody leading for as long after a
    /// crash; over `max`, the lease is as good as locked for ever.
    ///
    /// The rule judges a duration where it is new: when a lease is created, and where the duration differs from the one in
    /// the record before. A duration that the lease has already is never refused. A holder may always lower it, which is
    /// how some electors release. A record with a duration of 1 s was mostly released so: a short duration after it leads
    /// to a warning.
    ///
    /// A lease that never had leaseDurationSeconds elects by time only if its fields say so. One that counts
    /// leaseTransitions and has a renewTime is an election that forgot its duration, and refused; without a renewTime it is
    /// never renewed, as some locks are not, and this leads to a warning. One with renewTime and acquireTime and no
    /// count is probably an election whose duration is a constant in its code: the action `undeclared`. Any other is a lock,
    /// a status board or a claim, and left alone. A write that removes the duration from a lease is refused, and so is a
    /// release that removes duration and count together while the lease is unexpired, unless its holder provably writes it:
    /// otherwise a live election could pass for a lock.
    ///
    /// What to do: set leaseDurationSeconds within the bounds (client-go's default is 15), or widen them in the
    /// policy.
    pub struct DurationOutOfBounds = "duration-out-of-bounds" {
        /// What a duration out of bounds leads to.
        action: Action = Action::Enforce,
        /// The shortest duration allowed.
        min: Seconds = Seconds::new(5),
        /// Durations that are allowed and worth a word.
        long: Long = Long::default(),
        /// The longest duration allowed.
        max: Seconds = Seconds::new(604_800),
        /// What a lease with renewTime and acquireTime, and without duration and count, leads to. At most `action`, and at
        /// most warn.
        undeclared: Action = Action::Warn,
    }
    check with bounds_agree;
}

fn bounds_agree(settings: &DurationOutOfBounds) -> Result<(), String> {
    let DurationOutOfBounds { min, max, .. } = settings;
    if min > max {
        return Err(format!("min ({min}) is over max ({max}) in duration-out-of-bounds: no duration would do"));
    }
    Ok(())
}

impl Rule for DurationOutOfBounds {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes {
        timed: Action::Enforce,
        counted: Action::Enforce,
        // What it leads to is a setting, at most a warning.
        beating: Action::Warn,
        untimed: Action::Off,
    };

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let (old, new) = (&write.old.record, &write.new.record);
        let (before, after) = (old.duration_seconds, new.duration_seconds);
        let (lease, min, max) = (&write.lease, self.min, self.max);
        match write.change {
            Change::Create | Change::Takeover | Change::Handover | Change::Acquire => {}
            // To lower it is to release.
            Change::Amend if after.is_none() && before.is_some() || after > before => {}
            Change::Release if self.sheds(case) => {
                return Some(Finding::new(format!(
                    "a release of lease {lease} removes leaseDurationSeconds and leaseTransitions, by which {} holds it for \
                     {} s more; release with the holder empty and leave them",
                    quoted(old.holder.as_deref()),
                    case.provably_valid_for()?,
                )));
            }
            _ => return None,
        }
        let holder = quoted(Some(new.holder.as_deref()?));
        let Some(seconds) = after.map(i64::from) else {
            let free = format!(
                "{holder} holds lease {lease} without leaseDurationSeconds, so that everybody may take it at once; set {min} \
                 to {max}"
            );
            return match write.purpose() {
                Purpose::Counted if new.renew_time.is_none() => Some(Finding {
                    message: format!(
                        "{holder} holds lease {lease} with leaseTransitions and without leaseDurationSeconds: a lock until \
                         released may do so, and an elector takes it at once; set {min} to {max} for an election"
                    ),
                    action: Some(self.action.min(Action::Warn)),
                }),
                Purpose::Timed | Purpose::Counted => Some(Finding::new(free)),
                Purpose::Beating => Some(Finding {
                    message: format!(
                        "{holder} renews lease {lease} without leaseDurationSeconds, so that nobody can tell when it expires \
                         and an early takeover passes; set {min} to {max}, or leave renewTime or acquireTime out where \
                         nobody is elected"
                    ),
                    action: Some(self.action.min(self.undeclared).min(Action::Warn)),
                }),
                Purpose::Untimed => None,
            };
        };
        let after_release = before == Some(RELEASED);
        if before == after && !(after_release && write.change == Change::Acquire) {
            return None;
        }
        if seconds < min.get() {
            return Some(Finding {
                message: format!("{holder} sets a duration of {seconds} s on lease {lease}, under the minimum of {min}"),
                action: after_release.then(|| self.action.min(Action::Warn)),
            });
        }
        if seconds > max.get() {
            return Some(Finding::new(format!(
                "{holder} sets a duration of {seconds} s on lease {lease}, over the maximum of {max}"
            )));
        }
        let Long { after: long, action } = self.long;
        (seconds > long.get() && action != Action::Off).then(|| Finding {
            message: format!(
                "{holder} sets a duration of {seconds} s on lease {lease}, over {long}: after a crash nobody may take it for \
                 as long"
            ),
            action: Some(self.action.min(action)),
        })
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        let (min, max, long) = (&settings.min, &settings.max, &settings.long.after);
        let has = |object: &str| format!("{object}.?spec.?leaseDurationSeconds.hasValue()");
        let (has, had) = (has("object"), has("oldObject"));
        let of_a_holder = "variables.newHolder != ''";
        // Where the holder stays and the duration does not, the write is an amendment.
        let without = format!("!{has} && {of_a_holder} && (!variables.sameHolder || {had})");
        let is_new = format!(
            "{of_a_holder} && {has}\n\
             && !(variables.update && variables.newDuration == variables.oldDuration\n\
             && !(variables.oldDuration == {RELEASED} && variables.oldHolder == ''))\n\
             && (!variables.sameHolder || variables.newDuration > variables.oldDuration)"
        );
        let sets = |more: &str| {
            words(&format!(
                "{{variables.quotedNewHolder}} sets a duration of {{string(variables.newDuration)}} s on lease \
                 {{variables.lease}}, {more}"
            ))
        };
        let after_release = format!("variables.update && variables.oldDuration == {RELEASED}");
        let short = format!("variables.newDuration < {}\n&& {is_new}", min.number);
        let under = format!("under the minimum of {{{}}}", min.text);
        let warn = || Setting::at_most(Action::Warn);
        let is_unrenewed = "variables.purpose == 'counted' && !object.?spec.?renewTime.hasValue()";
        InProcess::Partly {
            checks: vec![
                Check::new(
                    format!("{without}\n&& {is_unrenewed}"),
                    &settings.action,
                    words(&format!(
                        "{{variables.quotedNewHolder}} holds lease {{variables.lease}} with leaseTransitions and without \
                         leaseDurationSeconds: a lock until released may do so, and an elector takes it at once; set {{{}}} \
                         to {{{}}} for an election",
                        min.text, max.text
                    )),
                )
                .at_most(warn()),
                Check::new(
                    format!("{without}\n&& variables.purpose in ['timed', 'counted'] && !({is_unrenewed})"),
                    &settings.action,
                    words(&format!(
                        "{{variables.quotedNewHolder}} holds lease {{variables.lease}} without leaseDurationSeconds, so that \
                         everybody may take it at once; set {{{}}} to {{{}}}",
                        min.text, max.text
                    )),
                ),
                Check::new(
                    format!("{without}\n&& variables.purpose == 'beating'"),
                    &settings.action,
                    words(&format!(
                        "{{variables.quotedNewHolder}} renews lease {{variables.lease}} without leaseDurationSeconds, so that \
                         nobody can tell when it expires and an early takeover passes; set {{{}}} to {{{}}}, or leave \
                         renewTime or acquireTime out where nobody is elected",
                        min.text, max.text
                    )),
                )
                .at_most(settings.undeclared.clone())
                .at_most(warn()),
                Check::new(format!("{short}\n&& !({after_release})"), &settings.action, sets(&under)),
                Check::new(format!("{short}\n&& {after_release}"), &settings.action, sets(&under)).at_most(warn()),
                Check::new(
                    format!("variables.newDuration > {} && variables.newDuration >= {}\n&& {is_new}", max.number, min.number),
                    &settings.action,
                    sets(&format!("over the maximum of {{{}}}", max.text)),
                ),
                Check::new(
                    format!(
                        "variables.newDuration > {} && variables.newDuration <= {}\n\
                         && variables.newDuration >= {}\n&& {is_new}",
                        long.number, max.number, min.number
                    ),
                    &settings.action,
                    sets(&format!("over {{{}}}: after a crash nobody may take it for as long", long.text)),
                )
                .at_most(settings.long.action.clone()),
            ],
            left: "releases that remove duration and count together: they carry no stamp of their own, and CEL has no clock",
        }
    }
}

impl DurationOutOfBounds {
    /// Whether a release by somebody who is not provably the holder takes both fields off a live lease by which it is
    /// known for an election. No elector's release does: the count is its next term's.
    fn sheds(&self, case: &Case<'_>) -> bool {
        let (old, new) = (&case.write.old.record, &case.write.new.record);
        old.transitions.is_some()
            && new.transitions.is_none()
            && new.duration_seconds.is_none()
            && case.write.ownership() != Ownership::Own
            && case.provably_valid_for().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            Write,
            testing::{Draft, at, create, free, held, untouched, update},
        },
        policy::rules::testing::check,
    };

    fn judge(write: &Write<'_>) -> Option<Action> {
        let rule = DurationOutOfBounds::default();
        check(&rule, write).map(|finding| finding.action.unwrap_or(rule.action))
    }

    const DENIED: Option<Action> = Some(Action::Enforce);
    const WARNED: Option<Action> = Some(Action::Warn);

    /// A record of an election that forgot its duration, of one whose duration is in its code, and of a lock.
    fn without_duration() -> [(Draft, Option<Action>); 6] {
        let bare = || held("b").duration(None).transitions(None);
        [
            (held("b").duration(None).renewed_at(0), DENIED),
            (held("b").duration(None).renewed_at(0).acquired_at(0), DENIED),
            (held("b").duration(None), WARNED),
            (bare().renewed_at(0).acquired_at(0), WARNED),
            (bare().renewed_at(0), None),
            (bare(), None),
        ]
    }

    #[test]
    fn a_new_duration_is_within_bounds() {
        for (seconds, expected) in [
            (Some(-3), DENIED),
            (Some(0), DENIED),
            (Some(1), DENIED),
            (Some(4), DENIED),
            (Some(5), None),
            (Some(3600), None),
            (Some(3601), WARNED),
            (Some(604_800), WARNED),
            (Some(604_801), DENIED),
            (Some(i32::MAX), DENIED),
        ] {
            let new = held("b").duration(seconds);
            assert_eq!(judge(&create(new.clone())), expected, "create {seconds:?}");
            assert_eq!(judge(&update(held("a"), new.clone())), expected, "takeover {seconds:?}");
            assert_eq!(judge(&update(free(), new.clone())), expected, "acquire {seconds:?}");
            let lower = held("b").duration(-9);
            assert_eq!(judge(&update(lower, new)), expected, "raised to {seconds:?}");
        }
    }

    #[test]
    fn a_duration_that_the_lease_has_already_is_never_refused() {
        for seconds in [1, 4, 86_400, i32::MAX] {
            let (old, new) = (held("a").duration(seconds), held("b").duration(seconds));
            assert_eq!(judge(&update(old.clone(), new.clone())), None, "takeover {seconds}");
            let after_release = if seconds == RELEASED { WARNED } else { None };
            assert_eq!(judge(&update(free().duration(seconds), new)), after_release, "acquire {seconds}");
            assert_eq!(judge(&update(old.clone(), old.transitions(9))), None, "amend {seconds}");
        }
    }

    #[test]
    fn after_a_release_a_short_duration_is_warned_of() {
        for old in [free().duration(1), held("a").duration(1)] {
            assert_eq!(judge(&update(old.clone(), held("b").duration(3))), WARNED, "{old:?}");
            assert_eq!(judge(&update(old.clone(), held("b").duration(15))), None);
            assert_eq!(judge(&update(old, held("b").duration(i32::MAX))), DENIED);
        }
        assert_eq!(judge(&update(free().duration(2), held("b").duration(3))), DENIED);
    }

    #[test]
    fn the_fields_tell_whether_a_lease_needs_a_duration() {
        for (new, expected) in without_duration() {
            assert_eq!(judge(&create(new.clone())), expected, "create {new:?}");
            assert_eq!(judge(&update(untouched(), new.clone())), expected, "acquire {new:?}");
            let mut old = new.clone();
            old.0.holder = Some("a".into());
            assert_eq!(judge(&update(old, new.clone())), expected, "takeover {new:?}");
            let mut later = new.clone();
            later.0.preferred_holder = Some("c".into());
            assert_eq!(judge(&update(new, later)), None, "what it lacks is not new");
        }
    }

    #[test]
    fn no_write_takes_the_duration_off_a_held_lease() {
        for (new, _) in without_duration() {
            for holder in ["a", "b"] {
                let old = held(holder).renewed_at(0).acquired_at(0);
                assert_eq!(judge(&update(old.clone(), new.clone())), DENIED, "{old:?} {new:?}");
                assert_eq!(judge(&update(old.transitions(None), new.clone())), DENIED, "{new:?}");
            }
            assert_eq!(judge(&update(free().duration(15), new)), DENIED, "acquire");
        }
    }

    #[test]
    fn a_release_of_a_live_lease_leaves_its_duration_or_its_count() {
        let old = || held("payments-0").renewed_at(0);
        let by = |new: Draft, elapsed: i64, pod: Option<&'static str>| {
            let mut write = update(old(), new).stamped(0, elapsed);
            write.reviewed = at(elapsed);
            write.writer.pod = pod.map(Into::into);
            judge(&write)
        };
        assert_eq!(by(untouched(), 4, None), DENIED);
        assert_eq!(by(untouched(), 4, Some("payments-1")), DENIED);
        assert_eq!(by(untouched(), 4, Some("payments-0")), None, "its own");
        assert_eq!(by(untouched(), 20, None), None, "expired");
        assert_eq!(by(free(), 4, None), None, "kubert's keeps the count");
        assert_eq!(by(untouched().duration(1), 4, None), None, "an uncounted elector's keeps the duration");
        let uncounted = update(old().transitions(None), untouched()).stamped(0, 4);
        assert_eq!(judge(&uncounted), None, "a lock with expiry, cleared");
    }

    #[test]
    fn a_holder_may_lower_its_duration_and_let_go() {
        assert_eq!(judge(&update(held("a").duration(15), held("a").duration(1))), None, "fabric8's release");
        assert_eq!(judge(&update(held("a").duration(15), free().duration(1))), None, "client-go's release");
        let short = held("a").duration(1);
        assert_eq!(judge(&update(short.clone().renewed_at(0), short.renewed_at(1))), None);
    }

    #[test]
    fn a_lease_that_nobody_holds_needs_no_duration() {
        assert_eq!(judge(&create(untouched())), None);
        assert_eq!(judge(&update(untouched(), untouched().duration(1))), None);
    }

    #[test]
    fn no_setting_leads_to_more_than_the_rules_action() {
        for action in [Action::Audit, Action::Warn] {
            let rule = DurationOutOfBounds {
                action,
                undeclared: Action::Enforce,
                long: Long {
                    action: Action::Enforce,
                    ..Long::default()
                },
                ..DurationOutOfBounds::default()
            };
            for new in [held("b").duration(7200), held("b").duration(None).transitions(None).renewed_at(0).acquired_at(0)] {
                assert_eq!(check(&rule, &create(new)).unwrap().action, Some(action));
            }
        }
    }
}
