//! `clock-skewed`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::Tolerance,
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A writer whose clock is further from the API server's than maxSkew.
    ///
    /// Measured between the renewTime that it writes and the API server's own stamp of that write. Leasehold's verdicts do
    /// not depend on any client's clock, and client-go's do not either; but every elector that compares renewTime with a
    /// clock of its own does, and takes this lease early, or never. Hours are a time zone: local time written as UTC.
    ///
    /// What to do: let the machine's clock be kept by NTP; write times in UTC.
    pub struct ClockSkewed = "clock-skewed" {
        /// What a skewed clock leads to.
        action: Action = Action::Warn,
    }
}

impl Rule for ClockSkewed {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let skew = case.excessive_skew()?;
        let direction = if skew.is_positive() { "ahead of" } else { "behind" };
        Some(Finding::new(format!(
            "the clock of {} is {} s {direction} the API server's on lease {}",
            quoted(write.new.record.holder.as_deref().or(write.old.record.holder.as_deref())),
            skew.abs().as_secs(),
            write.lease,
        )))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Partly {
            checks: vec![Check::new(
                "variables.excessiveSkew.size() > 0",
                &settings.action,
                words(
                    "the clock of {variables.newHolder != '' ? variables.quotedNewHolder : variables.quotedOldHolder} is \
                     {variables.excessiveSkew[0] > 0 ? string(variables.excessiveSkew[0]) \
                     : string(-variables.excessiveSkew[0])} s {variables.excessiveSkew[0] > 0 ? 'ahead of' : 'behind'} the API \
                     server's on lease {variables.lease}",
                ),
            )],
            left: "pure renewals, which the policies leave out for their cost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{free, held, update},
        policy::rules::testing::check,
    };

    #[test]
    fn a_clock_may_be_off_by_max_skew() {
        for (renew_time, expected) in [
            (105, None),
            (95, None),
            (106, Some("the clock of \"b\" is 6 s ahead of the API server's on lease shop/payments")),
            (40, Some("the clock of \"b\" is 60 s behind the API server's on lease shop/payments")),
        ] {
            let write = update(held("a").renewed_at(0), held("b").renewed_at(renew_time)).stamped(0, 100);
            let finding = check(&ClockSkewed::default(), &write);
            assert_eq!(finding.as_ref().map(|finding| finding.message.as_str()), expected);
        }
    }

    #[test]
    fn a_write_that_tells_no_time_tells_no_skew() {
        let unchanged = update(held("a").renewed_at(0), held("b").renewed_at(0)).stamped(0, 100);
        assert_eq!(check(&ClockSkewed::default(), &unchanged), None);
        let removed = update(held("a").renewed_at(0), free()).stamped(0, 100);
        assert_eq!(check(&ClockSkewed::default(), &removed), None);
        assert_eq!(check(&ClockSkewed::default(), &update(held("a"), held("b").renewed_at(5000))), None, "no stamp");
    }
}
