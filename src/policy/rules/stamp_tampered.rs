//! `stamp-tampered`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Heartbeat, Record, Stamp, Tolerance},
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A write that removes or forges the API server's note of when the lease was last renewed.
    ///
    /// The stamps in metadata.managedFields are the one clock that no client can choose, except by a write of
    /// its own: `managedFields: [{}]` removes them all, and later writes bring none back; a write that touches
    /// a label may send other times along. Either would blind every guard to an early takeover.
    ///
    /// The stamps of a lease that nobody holds are worth as much: without them, the next holder's would be missing.
    ///
    /// A write that removes renewTime itself while the holder stays does the same: its stamp goes with it. All of this holds
    /// for acquireTime in a lease that has no renewTime, where it is by acquireTime that the holder renews.
    ///
    /// No elector does this. A writer that labels its own lease moves its stamp forward to now, which is fine; to now
    /// by the clock of another API server, which may be behind by clockSlack.
    ///
    /// What this cannot tell: steps back of up to clockSlack each, by a writer who takes them while the stamp is within
    /// maxSkew of Leasehold's clock. So a stamp can be walked back by maxSkew in all, and no further.
    ///
    /// What to do: do not send metadata.managedFields, or send it as it was read. A lease that is blind already
    /// gets its stamps back by a server-side apply of any one field.
    pub struct StampTampered = "stamp-tampered" {
        /// What tampering leads to.
        action: Action = Action::Enforce,
    }
}

impl Rule for StampTampered {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes {
        timed: Action::Enforce,
        counted: Action::Enforce,
        beating: Action::Audit,
        untimed: Action::Audit,
    };

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if matches!(write.change, Change::Create | Change::Delete) {
            return None;
        }
        let (old, new) = (&write.old, &write.new);
        if old.tracked && !new.tracked && new.record != Record::default() {
            return Some(Finding::new(format!(
                "a write to lease {} removes metadata.managedFields, and with it every later stamp by which its expiry \
                 would be judged; leave metadata.managedFields out",
                write.lease,
            )));
        }
        let heartbeat = old.record.heartbeat();
        let field = heartbeat.as_str();
        let before = old.stamps.of(heartbeat).time()?;
        // Who begins to write renewTime is judged by its stamp from then on, and that is the API server's own.
        if heartbeat == Heartbeat::AcquireTime && new.record.heartbeat() != heartbeat && new.record.renew_time.is_some() {
            return None;
        }
        if new.record.time_of(heartbeat).is_none() {
            // Whoever releases may remove it; whoever takes over is judged by the old stamp.
            let holder = old.record.holder.as_ref().filter(|_| write.change == Change::Amend)?;
            return old.record.time_of(heartbeat).is_some().then(|| {
                Finding::new(format!(
                    "a write to lease {} removes {field}, by which its expiry is judged, while {} holds it; leave it as \
                     it is",
                    write.lease,
                    quoted(Some(holder)),
                ))
            });
        }
        let what = match new.stamps.of(heartbeat) {
            Stamp::Absent => format!("removes the stamp of {field}"),
            // Where the field is written, the API server stamps it itself, whatever was sent.
            _ if old.record.time_of(heartbeat) != new.record.time_of(heartbeat) => return None,
            Stamp::Undated => format!("removes the time from the stamp of {field}"),
            // A label right after a renewal, by way of another API server whose clock is behind the first one's.
            Stamp::At(after)
                if after < before
                    && before.duration_since(after) <= case.tolerance.clock_slack
                    && write.reviewed.duration_since(after).abs().as_secs() <= case.tolerance.max_skew.as_secs() =>
            {
                return None;
            }
            Stamp::At(after) if after < before => {
                format!("moves the stamp of {field} back by {} s", before.duration_since(after).as_secs())
            }
            Stamp::At(after) => {
                let ahead = after.duration_since(write.reviewed);
                let our_clock_is_behind = before.duration_since(write.reviewed) > case.tolerance.max_skew;
                if after == before || ahead <= case.tolerance.max_skew || our_clock_is_behind {
                    return None;
                }
                format!("moves the stamp of {field} {} s into the future", ahead.as_secs())
            }
        };
        Some(Finding::new(format!(
            "a write to lease {}, held by {}, {what} in metadata.managedFields, by which its expiry is judged; leave \
             metadata.managedFields out",
            write.lease,
            quoted(old.record.holder.as_deref()),
        )))
    }

    fn in_process(settings: &Self::Cel, tolerance: Tolerance) -> InProcess {
        let slack = tolerance.clock_slack.as_secs();
        let blinded = "!variables.isTracked && variables.wasTracked\n\
                       && (variables.newHolder != '' || object.?spec.?strategy.orValue('') != ''\n\
                       || object.?spec.?leaseDurationSeconds.hasValue() || object.?spec.?leaseTransitions.hasValue()\n\
                       || object.?spec.?acquireTime.hasValue() || object.?spec.?renewTime.hasValue()\n\
                       || object.?spec.?preferredHolder.hasValue())";
        let had_stamp = "variables.renewals.size() > 0\n\
                         && !(variables.beatsByAcquireTime && object.?spec.?renewTime.hasValue())";
        let has_heartbeat = |object: &str| {
            format!(
                "(variables.beatsByAcquireTime ? {object}.?spec.?acquireTime.hasValue() \
                 : {object}.?spec.?renewTime.hasValue())"
            )
        };
        let (keeps_heartbeat, had_heartbeat) = (has_heartbeat("object"), has_heartbeat("oldObject"));
        let same_heartbeat = "(variables.beatsByAcquireTime \
                              ? object.?spec.?acquireTime == oldObject.?spec.?acquireTime \
                              : object.?spec.?renewTime == oldObject.?spec.?renewTime)";
        let undated = "variables.heartbeatStamps.size() == 0";
        let moved_back = format!("variables.heartbeatStamps.max() < variables.renewals.max() - {slack}");
        InProcess::Partly {
            checks: vec![
                Check::new(
                    blinded,
                    &settings.action,
                    words(
                        "a write to lease {variables.lease} removes metadata.managedFields, and with it every later stamp \
                         by which its expiry would be judged; leave metadata.managedFields out",
                    ),
                ),
                Check::new(
                    format!(
                        "!{keeps_heartbeat} && variables.oldHolder != '' && variables.sameHolder && {had_heartbeat}\n\
                         && {had_stamp}\n&& !({blinded})"
                    ),
                    &settings.action,
                    words(
                        "a write to lease {variables.lease} removes {variables.heartbeat}, by which its expiry is judged, while \
                         {variables.quotedOldHolder} holds it; leave it as it is",
                    ),
                ),
                Check::new(
                    format!(
                        "{keeps_heartbeat}\n\
                         && (!variables.heartbeatIsOwned\n|| {same_heartbeat} && ({undated} || {moved_back}))\n\
                         && {had_stamp}\n&& !({blinded})"
                    ),
                    &settings.action,
                    words(&format!(
                        "a write to lease {{variables.lease}}, held by {{variables.quotedOldHolder}}, {{!variables.heartbeatIsOwned \
                         ? 'removes the stamp of ' + variables.heartbeat : {undated} \
                         ? 'removes the time from the stamp of ' + variables.heartbeat \
                         : 'moves the stamp of ' + variables.heartbeat + ' back by ' \
                         + string(variables.renewals.max() - variables.heartbeatStamps.max()) + ' s'}} in \
                         metadata.managedFields, by which its expiry is judged; leave metadata.managedFields out"
                    )),
                ),
            ],
            left: "stamps moved into the future, or back by no more than clockSlack: CEL has no clock to tell them from a \
                   writer's own",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            Write,
            testing::{at, create, free, held, takeover, update},
        },
        policy::rules::testing::check,
    };

    fn judge(write: &Write<'_>) -> Option<String> {
        check(&StampTampered::default(), write).map(|finding| finding.message)
    }

    /// A write that leaves the record alone, with this stamp of renewTime before and after, read at 100.
    fn label(before: Stamp, after: Stamp) -> Write<'static> {
        let mut write = update(held("a").renewed_at(0), held("a").renewed_at(0));
        write.old.stamps.renew_time = before;
        write.new.stamps.renew_time = after;
        write.reviewed = at(100);
        write
    }

    #[test]
    fn a_stamp_may_stay_or_move_to_now() {
        for (after, complaint) in [
            (Stamp::At(at(90)), None),
            (Stamp::At(at(95)), None),
            (Stamp::At(at(100)), None),
            (Stamp::At(at(105)), None),
            (Stamp::At(at(106)), Some("moves the stamp of renewTime 6 s into the future")),
            (Stamp::At(at(3700)), Some("moves the stamp of renewTime 3600 s into the future")),
            (Stamp::At(at(89)), Some("moves the stamp of renewTime back by 1 s")),
            (Stamp::Undated, Some("removes the time from the stamp")),
            (Stamp::Absent, Some("removes the stamp of renewTime")),
        ] {
            let message = judge(&label(Stamp::At(at(90)), after));
            match complaint {
                None => assert_eq!(message, None, "{after:?}"),
                Some(complaint) => assert!(message.as_ref().is_some_and(|it| it.contains(complaint)), "{message:?}"),
            }
        }
    }

    #[test]
    fn a_label_right_after_a_renewal_may_pass_an_api_server_whose_clock_is_behind() {
        for (before, after, complains) in [
            (100, 99, false),
            (96, 95, false),
            (106, 105, false),
            (100, 98, true), // more than the slack
            (95, 94, true),  // not now
            (107, 106, true),
        ] {
            let message = judge(&label(Stamp::At(at(before)), Stamp::At(at(after))));
            assert_eq!(message.is_some(), complains, "{before} {after}");
        }
    }

    #[test]
    fn a_stamp_that_was_in_our_future_before_says_that_our_clock_is_behind() {
        assert_eq!(judge(&label(Stamp::At(at(3700)), Stamp::At(at(3710)))), None);
        assert_eq!(judge(&label(Stamp::At(at(3700)), Stamp::At(at(3700)))), None);
    }

    #[test]
    fn a_lease_without_stamps_has_none_to_lose() {
        for before in [Stamp::Absent, Stamp::Undated] {
            for after in [Stamp::Absent, Stamp::Undated, Stamp::At(at(0))] {
                assert_eq!(judge(&label(before, after)), None);
            }
        }
    }

    #[test]
    fn a_write_of_renew_time_may_not_lose_its_stamp_either() {
        let mut early = takeover(held("a").renewed_at(0), held("b").renewed_at(3)).stamped(0, 3);
        assert_eq!(judge(&early), None);
        early.new.stamps.renew_time = Stamp::Absent;
        assert!(judge(&early).is_some());
    }

    #[test]
    fn a_release_that_removes_renew_time_removes_its_stamp() {
        let mut release = update(held("a").renewed_at(0), free()).stamped(0, 3);
        release.new.stamps.renew_time = Stamp::Absent;
        assert_eq!(judge(&release), None);
    }

    #[test]
    fn a_holder_that_stays_keeps_its_renew_time() {
        let mut removed = update(held("a").renewed_at(0).acquired_at(0), held("a").acquired_at(0)).stamped(0, 3);
        removed.new.stamps.renew_time = Stamp::Absent;
        assert!(judge(&removed).is_some_and(|message| message.contains("removes renewTime")));
    }

    #[test]
    fn a_lease_that_is_renewed_by_acquire_time_keeps_the_stamp_of_that() {
        let label = |before: Stamp, after: Stamp| {
            let mut write = update(held("a").acquired_at(0), held("a").acquired_at(0));
            (write.old.stamps.acquire_time, write.new.stamps.acquire_time) = (before, after);
            write.reviewed = at(100);
            write
        };
        for (after, complaint) in [
            (Stamp::At(at(90)), None),
            (Stamp::At(at(100)), None),
            (Stamp::At(at(3700)), Some("moves the stamp of acquireTime 3600 s into the future")),
            (Stamp::At(at(-3600)), Some("moves the stamp of acquireTime back by 3690 s")),
            (Stamp::Undated, Some("removes the time from the stamp of acquireTime")),
            (Stamp::Absent, Some("removes the stamp of acquireTime")),
        ] {
            let message = judge(&label(Stamp::At(at(90)), after));
            match complaint {
                None => assert_eq!(message, None, "{after:?}"),
                Some(complaint) => assert!(message.as_ref().is_some_and(|it| it.contains(complaint)), "{message:?}"),
            }
        }
        // Its next beat, whatever stamps it claims; its end; and what is renewed by renewTime from then on.
        let written = |record| {
            let mut write = update(held("a").acquired_at(0), record);
            write.old.stamps.acquire_time = Stamp::At(at(90));
            write.new.stamps.acquire_time = Stamp::At(at(100));
            write
        };
        assert_eq!(judge(&written(held("a").acquired_at(100))), None);
        assert_eq!(judge(&written(free())), None);
        assert_eq!(judge(&written(held("a").acquired_at(0).renewed_at(100))), None);
        assert_eq!(judge(&written(held("a").renewed_at(100))), None);
        let message = judge(&written(held("a"))).unwrap();
        assert!(message.contains("removes acquireTime"), "{message}");
        // A renewTime beside it is the one that counts.
        let mut both = label(Stamp::At(at(90)), Stamp::At(at(0)));
        (both.old.record.renew_time, both.new.record.renew_time) = (Some(at(90)), Some(at(90)));
        (both.old.stamps.renew_time, both.new.stamps.renew_time) = (Stamp::At(at(90)), Stamp::At(at(90)));
        assert_eq!(judge(&both), None);
    }

    #[test]
    fn a_free_lease_keeps_its_stamps_for_its_next_holder() {
        let mut cleared = update(free().transitions(3), free().transitions(3));
        (cleared.old.tracked, cleared.new.tracked) = (true, false);
        assert!(judge(&cleared).is_some_and(|message| message.contains("every later stamp")));
        (cleared.old.tracked, cleared.new.tracked) = (true, true);
        assert_eq!(judge(&cleared), None);
        (cleared.old.tracked, cleared.new.tracked) = (false, false);
        assert_eq!(judge(&cleared), None, "it had none");
        // Who removes all fields leaves nothing to own.
        let mut emptied = update(held("a").renewed_at(0), free()).stamped(0, 3);
        emptied.new.record = Record::default();
        (emptied.old.tracked, emptied.new.tracked) = (true, false);
        emptied.new.stamps.renew_time = Stamp::Absent;
        assert_eq!(judge(&emptied), None);
    }

    #[test]
    fn who_clears_what_nobody_holds_hides_nothing() {
        let mut cleared = update(free().renewed_at(0), free()).stamped(0, 3);
        cleared.new.stamps.renew_time = Stamp::Absent;
        assert_eq!(judge(&cleared), None);
    }

    #[test]
    fn a_new_lease_has_no_stamps_to_tamper_with() {
        assert_eq!(judge(&create(held("a").renewed_at(0))), None);
    }
}
