//! `takeover-before-expiry`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Clock, Evidence, EvidenceKind, Tolerance, Write},
    policy::{
        Action,
        in_process::{Check, InProcess, Setting, words},
    },
};

rule_settings! {
    /// A takeover of a lease that its holder renewed less than the lease's own duration ago.
    ///
    /// The old holder still believes that it leads, and works on: two leaders at once. The age of the lease is
    /// measured between two stamps that the API server itself wrote into metadata.managedFields: when
    /// renewTime was last written, and when this write set holderIdentity. No client's clock takes part, so a
    /// candidate whose clock is wrong cannot take the lease early, and one that really waited is never refused.
    ///
    /// Typical causes: the candidate judges expiry by its own duration instead of the lease's (client-go
    /// before v0.27, fabric8 before 7.5, the official Java and Python clients); it compares renewTime with its
    /// own clock, and that clock is ahead; it takes whatever it finds.
    ///
    /// What to do: nothing for the moment, the candidate will succeed once the lease has expired. Then make all
    /// candidates of a lease use the same duration, and an elector that waits for the duration in the lease
    /// after it last saw the record change, by its own monotonic clock.
    ///
    /// A holder may give its lease away: where the writer is provably the holder (by the pod that its token is bound to, or by
    /// the field manager that carries its identity) and writes another's name, the write is a handover, which is never early. A
    /// holder that writes a new name of its own takes the lease over like anybody else.
    ///
    /// Where the lease has no stamps (one write with `managedFields: [{}]` removes them for good), a lease that
    /// is younger than its own duration is still judged by its creationTimestamp; else only the old holder's
    /// renewTime is left. That is a client's word, so it leads to the action `claimed`, never to a denial
    /// unless you say so. A server-side apply of any field brings the stamps back.
    pub struct TakeoverBeforeExpiry = "takeover-before-expiry" {
        /// What an early takeover leads to that the API server's stamps prove.
        action: Action = Action::Enforce,
        /// What it leads to where only the old holder's renewTime speaks against it. At most `action`.
        claimed: Action = Action::Warn,
    }
}

impl Rule for TakeoverBeforeExpiry {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::TIMED;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if write.change != Change::Takeover {
            return None;
        }
        let valid = write.old.record.valid_seconds()?;
        let evidence = case.evidence?;
        if evidence.kind == EvidenceKind::Implausible {
            return Some(Finding {
                message: format!(
                    "{} takes lease {} from {}, and whether it has expired is unknown: its last renewal is \
                     stamped {} s after this write; compare the clocks of the API servers",
                    quoted(write.new.record.holder.as_deref()),
                    write.lease,
                    quoted(write.old.record.holder.as_deref()),
                    -evidence.elapsed_seconds(),
                ),
                action: Some(self.action.min(self.claimed).min(Action::Warn)),
            });
        }
        let elapsed = evidence.elapsed_seconds();
        if elapsed >= valid - case.tolerance.of_clock(evidence.clock).as_secs() {
            return None;
        }
        // A claimed renewal may lie in the future, by a clock that is ahead.
        let left = valid - elapsed;
        let renewed = match evidence.kind {
            EvidenceKind::Created => format!("created {elapsed} s ago"),
            _ if elapsed < 0 => format!("renewed {} s in the future", -elapsed),
            _ => format!("renewed {elapsed} s ago"),
        };
        let by = match (evidence.kind, evidence.clock) {
            (EvidenceKind::Claimed, _) => "by its holder's word, for lack of stamps",
            (_, Clock::ApiServer) => "API server clock",
            (_, Clock::Leasehold) => "API server's stamp, Leasehold's clock",
        };
        let message = format!(
            "{} may not take lease {} from {} yet: {renewed} ({by}), valid for {valid} s, free in {left} s at the earliest{}",
            quoted(write.new.record.holder.as_deref()),
            write.lease,
            quoted(write.old.record.holder.as_deref()),
            likely_cause(case, evidence, valid),
        );
        let action = (evidence.kind == EvidenceKind::Claimed).then(|| self.action.min(self.claimed));
        Some(Finding { message, action })
    }

    fn in_process(settings: &Self::Cel, tolerance: Tolerance) -> InProcess {
        let (slack, max_skew) = (tolerance.clock_slack.as_secs(), tolerance.max_skew.as_secs());
        let behind = "variables.renewals.max() - variables.oldRenewTime";
        let likely_cause = format!(
            "variables.excessiveSkew.size() > 0 ? {skewed} : \
             variables.newDuration > 0 && variables.newDuration < variables.oldDuration \
             && variables.newDuration <= variables.elapsed && variables.elapsed < variables.oldDuration ? {its_own} : \
             variables.evidence == 'stamped' && variables.oldRenewTime.size() > 0 && {behind}[0] > {max_skew} ? {labelled} : ''",
            skewed = words(
                "; the candidate's clock is {variables.excessiveSkew[0] > 0 ? string(variables.excessiveSkew[0]) \
                 : string(-variables.excessiveSkew[0])} s {variables.excessiveSkew[0] > 0 ? 'ahead of' : 'behind'} the API \
                 server's"
            ),
            its_own = words(
                "; the candidate seems to judge by its own duration of {string(variables.newDuration)} s"
            ),
            labelled = words(&format!(
                "; its renewTime is {{string({behind}[1])}} s older than its stamp: the holder's clock is behind, or it labelled its \
                 lease"
            )),
        );
        let too_early = |by: &str| {
            words(&format!(
                "{{variables.quotedNewHolder}} may not take lease {{variables.lease}} from {{variables.quotedOldHolder}} yet: \
                 {{variables.evidence == 'created' ? 'created ' + string(variables.elapsed) + ' s ago' \
                 : variables.elapsed < 0 ? 'renewed ' + string(-variables.elapsed) + ' s in the future' \
                 : 'renewed ' + string(variables.elapsed) + ' s ago'}} ({by}), valid for {{string(variables.oldDuration)}} s, free \
                 in {{string(variables.oldDuration - variables.elapsed)}} s at the earliest{{{likely_cause}}}"
            ))
        };
        let of_evidence = |evidence: &str| {
            // Whether it is a handover is asked last: it costs the most.
            format!(
                "variables.replacesHolder && variables.oldDuration > 0\n&& {evidence}\n&& !variables.isHandover"
            )
        };
        let is_early = format!("variables.elapsed < variables.oldDuration - {slack}");
        InProcess::Partly {
            checks: vec![
                Check::new(
                    of_evidence(&format!(
                        "!(variables.expiredByStamps)\n&& variables.evidence in ['stamped', 'created'] && {is_early}"
                    )),
                    &settings.action,
                    too_early("API server clock"),
                ),
                Check::new(
                    of_evidence(&format!("variables.evidence == 'claimed' && {is_early}")),
                    &settings.action,
                    too_early("by its holder's word, for lack of stamps"),
                )
                .at_most(settings.claimed.clone()),
                Check::new(
                    of_evidence("variables.evidence == 'implausible'"),
                    &settings.action,
                    words(
                        "{variables.quotedNewHolder} takes lease {variables.lease} from {variables.quotedOldHolder}, and \
                         whether it has expired is unknown: its last renewal is stamped {string(-variables.elapsed)} s \
                         after this write; compare the clocks of the API servers",
                    ),
                )
                .at_most(settings.claimed.clone())
                .at_most(Setting::at_most(Action::Warn)),
            ],
            left: "takeovers that carry no stamp of their own (of a lease without managedFields): CEL has no clock; and those by a \
                   sibling of the holder's pod under a field manager that carries the holder's identity",
        }
    }
}

/// The cause that the numbers point to, as a clause to append; empty where they point to none.
fn likely_cause(case: &Case<'_>, evidence: &Evidence, valid: i64) -> String {
    let Write { old, new, .. } = case.write;
    if let Some(skew) = case.excessive_skew() {
        let direction = if skew.is_positive() { "ahead of" } else { "behind" };
        return format!("; the candidate's clock is {} s {direction} the API server's", skew.abs().as_secs());
    }
    let waited_its_own = new
        .record
        .valid_seconds()
        .filter(|own| *own < valid && (*own..valid).contains(&evidence.elapsed_seconds()));
    if let Some(own) = waited_its_own {
        return format!("; the candidate seems to judge by its own duration of {own} s");
    }
    let behind = old.record.renew_instant().map(|renew_time| evidence.renewed.duration_since(renew_time));
    match behind {
        Some(behind) if behind > case.tolerance.max_skew && evidence.kind == EvidenceKind::Stamped => format!(
            "; its renewTime is {} s older than its stamp: the holder's clock is behind, or it labelled its lease",
            behind.as_secs()
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            Stamp,
            testing::{at, held, takeover, update},
        },
        policy::rules::testing::check,
    };

    fn judge(write: &Write<'_>) -> Option<Finding> {
        check(&TakeoverBeforeExpiry::default(), write)
    }

    #[test]
    fn a_takeover_is_early_until_the_duration_has_passed_but_for_the_slack() {
        // Elapsed seconds by stamps, and whether it is refused: duration 15, slack 1.
        for (elapsed, refused) in [(0, true), (4, true), (13, true), (14, false), (15, false), (3600, false)] {
            let write = takeover(held("a").duration(15), held("b").duration(15)).stamped(100, 100 + elapsed);
            assert_eq!(judge(&write).is_some(), refused, "{elapsed} s");
        }
    }

    #[test]
    fn the_message_says_who_and_how_long() {
        let write = takeover(held("a").duration(15), held("b").duration(15)).stamped(0, 4);
        assert_eq!(
            judge(&write).unwrap().message,
            "\"b\" may not take lease shop/payments from \"a\" yet: renewed 4 s ago (API server clock), valid for \
             15 s, free in 11 s at the earliest"
        );
    }

    #[test]
    fn the_likely_cause_is_named() {
        let cases = [
            (held("b").renewed_at(3604), "; the candidate's clock is 3600 s ahead of the API server's"),
            (held("b").renewed_at(-96), "; the candidate's clock is 100 s behind the API server's"),
            (held("b").renewed_at(4).duration(4), "; the candidate seems to judge by its own duration of 4 s"),
            (held("b").renewed_at(4).duration(10), "at the earliest"),
        ];
        for (new, ending) in cases {
            let write = takeover(held("a").renewed_at(0), new).stamped(0, 4);
            let message = judge(&write).unwrap().message;
            assert!(message.ends_with(ending), "{message}");
        }
        let labelled = takeover(held("a").renewed_at(-20), held("b").renewed_at(4)).stamped(0, 4);
        let message = judge(&labelled).unwrap().message;
        assert!(message.contains("its renewTime is 20 s older than its stamp"), "{message}");
    }

    #[test]
    fn no_clients_clock_takes_part() {
        for claimed in [-86_400, 0, 86_400] {
            let old = held("a").renewed_at(claimed);
            let waited = takeover(old.clone(), held("b").renewed_at(-claimed)).stamped(0, 15);
            assert_eq!(judge(&waited), None);
            let early = takeover(old, held("b").renewed_at(-claimed)).stamped(0, 3);
            assert_eq!(judge(&early).unwrap().action, None, "the rule's own action");
        }
    }

    #[test]
    fn only_takeovers_of_a_lease_with_a_duration_are_judged() {
        for write in [
            update(held("a").renewed_at(0), held("a").renewed_at(1)),
            update(crate::lease::testing::free(), held("b")),
            update(held("a"), crate::lease::testing::free()),
            takeover(held("a").duration(None), held("b")),
            takeover(held("a").duration(0), held("b")),
        ] {
            assert_eq!(judge(&write.stamped(0, 1)), None);
        }
    }

    #[test]
    fn stamps_that_contradict_each_other_never_deny() {
        let write = takeover(held("a"), held("b")).stamped(60, 0);
        let finding = judge(&write).unwrap();
        assert_eq!(finding.action, Some(Action::Warn));
        assert!(finding.message.contains("stamped 60 s after this write"), "{}", finding.message);
    }

    #[test]
    fn a_clients_word_warns_and_never_denies_by_default() {
        let mut write = takeover(held("a").renewed_at(0), held("b"));
        write.reviewed = at(4);
        assert_eq!(judge(&write).unwrap().action, Some(Action::Warn));
        let strict = TakeoverBeforeExpiry { claimed: Action::Enforce, ..TakeoverBeforeExpiry::default() };
        assert_eq!(check(&strict, &write).unwrap().action, Some(Action::Enforce));
        let lenient = TakeoverBeforeExpiry { action: Action::Audit, claimed: Action::Enforce };
        assert_eq!(check(&lenient, &write).unwrap().action, Some(Action::Audit), "never more than the rule's own");
    }

    #[test]
    fn a_young_lease_without_stamps_is_judged_by_its_creation() {
        let mut write = takeover(held("a").duration(15), held("b"));
        write.old.stamps.created = Some(at(0));
        // By our own clock, so maxSkew (5 s) is the slack.
        for (age, refused) in [(0, true), (9, true), (10, false), (20, false)] {
            write.reviewed = at(age);
            assert_eq!(judge(&write).is_some(), refused, "{age} s");
        }
    }

    #[test]
    fn a_takeover_that_clears_its_own_stamps_is_judged_by_our_clock() {
        let mut write = takeover(held("a").duration(15), held("b")).stamped(0, 4);
        write.new.stamps.holder = Stamp::Absent;
        let message = judge(&write).unwrap().message;
        assert!(message.contains("Leasehold's clock"), "{message}");
        write.reviewed = at(10);
        assert_eq!(judge(&write), None);
    }
}
