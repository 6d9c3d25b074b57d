//! `acquire-time-stale`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::Tolerance,
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A new holder that leaves acquireTime as it was, or absent.
    ///
    /// acquireTime says since when the present holder leads. Left alone, it names the term of somebody else. Nothing
    /// breaks, but whoever reads it is misled; so it is only noted.
    ///
    /// What to do: set acquireTime to now when you take a lease over or acquire it.
    pub struct AcquireTimeStale = "acquire-time-stale" {
        /// What a stale acquireTime leads to.
        action: Action = Action::Audit,
    }
}

impl Rule for AcquireTimeStale {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if !write.change.gives_a_new_holder() {
            return None;
        }
        let how = match write.new.record.acquire_time {
            None => "without acquireTime",
            Some(time) if Some(time) == write.old.record.acquire_time => "with the acquireTime of the term before",
            Some(_) => return None,
        };
        let holder = quoted(write.new.record.holder.as_deref());
        Some(Finding::new(format!("{holder} takes lease {} {how}", write.lease)))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        let (absent, same) = (
            "!object.?spec.?acquireTime.hasValue()",
            "object.?spec.?acquireTime == oldObject.?spec.?acquireTime",
        );
        InProcess::Fully(vec![Check::new(
            format!("variables.givesNewHolder && ({absent} || {same})"),
            &settings.action,
            words(&format!(
                "{{variables.quotedNewHolder}} takes lease {{variables.lease}} {{{absent} ? 'without acquireTime' \
                 : 'with the acquireTime of the term before'}}"
            )),
        )])
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
    fn a_new_term_has_a_new_beginning() {
        for old in [held("a").acquired_at(0), free().acquired_at(0)] {
            for (new, fires) in
                [(held("b").acquired_at(9), false), (held("b").acquired_at(0), true), (held("b"), true)]
            {
                let write = update(old.clone(), new);
                assert_eq!(check(&AcquireTimeStale::default(), &write).is_some(), fires, "{write:?}");
            }
        }
    }

    #[test]
    fn an_old_term_keeps_its_beginning() {
        let renew = update(held("a").acquired_at(0).renewed_at(0), held("a").acquired_at(0).renewed_at(2));
        assert_eq!(check(&AcquireTimeStale::default(), &renew), None);
        assert_eq!(check(&AcquireTimeStale::default(), &update(held("a").acquired_at(0), free())), None);
    }
}
