//! `duration-out-of-bounds`

use super::{Case, Finding, Rule, quoted};
use crate::{
    lease::{Change, Tolerance},
    policy::{
        Action, Seconds,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A held lease with no duration, or with one outside the policy's bounds.
    ///
    /// A held lease without leaseDurationSeconds is free to all: every elector reads it as expired. A very short
    /// duration turns each slow request into a change of leader; a very long one leaves nobody leading for as
    /// long after a crash.
    ///
    /// Judged where a duration is chosen: when a lease is created, taken over or acquired, and when its holder
    /// raises or removes it. A holder may always lower it: releasing by duration 1 is how some electors let go.
    ///
    /// What to do: set leaseDurationSeconds within the bounds (client-go's default is 15), or widen them in the
    /// policy.
    pub struct DurationOutOfBounds = "duration-out-of-bounds" {
        /// What a duration out of bounds leads to.
        action: Action = Action::Enforce,
        /// The shortest duration allowed.
        min: Seconds = Seconds::new(5),
        /// The longest duration allowed.
        max: Seconds = Seconds::new(3600),
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

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let (old, new) = (&write.old.record, &write.new.record);
        let chosen = match write.change {
            Change::Create | Change::Takeover | Change::Acquire => true,
            Change::Amend => match (old.duration_seconds, new.duration_seconds) {
                (Some(old), Some(new)) => new > old,
                (old, new) => old != new,
            },
            Change::Renew | Change::Release | Change::Untouched | Change::Delete => false,
        };
        if !chosen {
            return None;
        }
        let holder = new.holder.as_deref()?;
        let seconds = new.duration_seconds.map(i64::from);
        if seconds.is_some_and(|seconds| (self.min.get()..=self.max.get()).contains(&seconds)) {
            return None;
        }
        let (holder, lease, min, max) = (quoted(Some(holder)), &write.lease, self.min, self.max);
        let message = match seconds {
            None => format!(
                "{holder} holds lease {lease} without leaseDurationSeconds, so that everybody may take it at once; \
                 set {min} to {max}"
            ),
            Some(seconds) if seconds < min.get() => {
                format!("{holder} sets a duration of {seconds} s on lease {lease}, under the minimum of {min}")
            }
            Some(seconds) => {
                format!("{holder} sets a duration of {seconds} s on lease {lease}, over the maximum of {max}")
            }
        };
        Some(Finding::new(message))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        let (min, max) = (&settings.min, &settings.max);
        let chosen = "(object.?spec.?leaseDurationSeconds.hasValue() && oldObject.?spec.?leaseDurationSeconds.hasValue()\n\
                      ? variables.newDuration > variables.oldDuration\n\
                      : object.?spec.?leaseDurationSeconds != oldObject.?spec.?leaseDurationSeconds)";
        InProcess::Fully(vec![Check::new(
            format!(
                "variables.newHolder != '' && !(object.?spec.?leaseDurationSeconds.hasValue()\n\
                 && variables.newDuration >= {} && variables.newDuration <= {})\n\
                 && (variables.change in ['create', 'takeover', 'acquire'] || variables.change == 'amend' && {chosen})",
                min.number, max.number
            ),
            &settings.action,
            words(&format!(
                "{{variables.quotedNewHolder}} {{!object.?spec.?leaseDurationSeconds.hasValue() \
                 ? 'holds lease ' + variables.lease + ' without leaseDurationSeconds, so that everybody may take it at once; \
                 set ' + {min} + ' to ' + {max} \
                 : 'sets a duration of ' + string(variables.newDuration) + ' s on lease ' + variables.lease \
                 + (variables.newDuration < {least} ? ', under the minimum of ' + {min} : ', over the maximum of ' + {max})}}",
                min = min.text,
                max = max.text,
                least = min.number,
            )),
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            Write,
            testing::{create, free, held, untouched, update},
        },
        policy::rules::testing::check,
    };

    fn fires(write: &Write<'_>) -> bool {
        check(&DurationOutOfBounds::default(), write).is_some()
    }

    #[test]
    fn a_chosen_duration_is_within_bounds() {
        for (seconds, expected) in [
            (None, true),
            (Some(-3), true),
            (Some(0), true),
            (Some(1), true),
            (Some(4), true),
            (Some(5), false),
            (Some(15), false),
            (Some(3600), false),
            (Some(3601), true),
            (Some(i32::MAX), true),
        ] {
            let new = held("b").duration(seconds);
            assert_eq!(fires(&create(new.clone())), expected, "create {seconds:?}");
            assert_eq!(fires(&update(held("a"), new.clone())), expected, "takeover {seconds:?}");
            assert_eq!(fires(&update(free(), new)), expected, "acquire {seconds:?}");
        }
    }

    #[test]
    fn a_holder_may_lower_its_duration_and_let_go() {
        assert!(!fires(&update(held("a").duration(15), held("a").duration(1))), "fabric8's release");
        assert!(!fires(&update(held("a").duration(15), free().duration(1))), "client-go's release");
        assert!(!fires(&update(held("a").duration(1).renewed_at(0), held("a").duration(1).renewed_at(1))));
    }

    #[test]
    fn a_holder_may_not_raise_it_out_of_bounds_or_remove_it() {
        assert!(fires(&update(held("a").duration(15), held("a").duration(None))));
        assert!(!fires(&update(held("a").duration(None), held("a").duration(None).transitions(7))));
        assert!(fires(&update(held("a").duration(15), held("a").duration(86_400))));
        assert!(fires(&update(held("a").duration(1), held("a").duration(2))));
        assert!(!fires(&update(held("a").duration(15), held("a").duration(30))));
    }

    #[test]
    fn a_lease_that_nobody_holds_needs_no_duration() {
        assert!(!fires(&create(untouched())));
        assert!(!fires(&update(untouched(), untouched().duration(86_400))));
    }
}
