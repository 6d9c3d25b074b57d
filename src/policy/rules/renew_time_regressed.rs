//! `renew-time-regressed`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Tolerance},
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A holder that moves renewTime back.
    ///
    /// Its clock was set back, or two processes share its identity and their clocks differ. Candidates that compare
    /// renewTime with their own clock take the lease for older than it is.
    ///
    /// What to do: let the machines' clocks be kept by NTP; see that each replica has an identity of its own.
    pub struct RenewTimeRegressed = "renew-time-regressed" {
        /// What such a renewal leads to.
        action: Action = Action::Warn,
    }
}

impl Rule for RenewTimeRegressed {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if !matches!(write.change, Change::Renew | Change::Amend) {
            return None;
        }
        let (before, after) = (write.old.record.renew_instant()?, write.new.record.renew_instant()?);
        if after >= before {
            return None;
        }
        Some(Finding::new(format!(
            "{} moves renewTime of lease {} back by {} s",
            quoted(write.new.record.holder.as_deref()),
            write.lease,
            before.duration_since(after).as_secs_f64(),
        )))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        // Times of one length order like their instants, and CEL's durations end at 292 years.
        let time = |object: &str| format!("string({object}.spec.renewTime)");
        let (before, after) = (time("oldObject"), time("object"));
        let in_range = |time: &str| format!("{time} > '1970' && {time} < '2200'");
        InProcess::Partly {
            checks: vec![Check::new(
                format!(
                    "variables.change == 'amend'\n\
                     && object.?spec.?renewTime.hasValue() && oldObject.?spec.?renewTime.hasValue()\n\
                     && {after} < {before} && {} && {}",
                    in_range(&after),
                    in_range(&before)
                ),
                &settings.action,
                words(
                    "{variables.quotedNewHolder} moves renewTime of lease {variables.lease} back by \
                     {string(timestamp(oldObject.spec.renewTime) - timestamp(object.spec.renewTime)).replace('s', '')} s",
                ),
            )],
            left: "pure renewals, which the policies leave out for their cost, and years before 1970 or after 2199",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{free, held, takeover, update},
        policy::rules::testing::check,
    };

    #[test]
    fn a_holders_time_goes_forward() {
        for (after, fires) in [(9, true), (10, false), (12, false)] {
            for new in [held("a").renewed_at(after), held("a").renewed_at(after).duration(20)] {
                let write = update(held("a").renewed_at(10), new);
                assert_eq!(check(&RenewTimeRegressed::default(), &write).is_some(), fires, "{after}");
            }
        }
    }

    #[test]
    fn another_holders_clock_is_its_own() {
        let write = takeover(held("a").renewed_at(10), held("b").renewed_at(0));
        assert_eq!(check(&RenewTimeRegressed::default(), &write), None);
        assert_eq!(check(&RenewTimeRegressed::default(), &update(held("a").renewed_at(10), free())), None);
    }
}
