//! Break-glass: an operator must always be able to take a lease by hand.
//!
//! A write that a rule would deny passes, with a warning, if its user is in one of the policy's groups. What was
//! wrong is still said, to the client and in the audit log, with who did it and why. It turns denials into
//! warnings and does nothing else: it silences no rule, and mode and overrides hold as before.
//!
//! The annotation [`ANNOTATION`] says why. It is no key of its own: set by a user outside the groups, it changes
//! nothing and is logged. Only the write that sets it, or sets it anew, gives a reason, for it stays on the lease
//! and the next writer, who may be an elector, never asked for anything. A delete carries no object to annotate:
//! there the lease's own annotation counts.
//!
//! The group alone suffices by default, since whoever has to break glass is in a hurry and uses `kubectl edit`.
//! Where electors run with credentials of such a group (an `admin.conf` of kubeadm in a test cluster, say), the
//! group alone would let *them* pass, too: `requireAnnotation: true` asks everybody for a reason.
//!
//! The API server's own writes come from `system:apiserver`, which is in `system:masters`: they are elections and
//! identity leases, and never an operator's.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::profiles::API_SERVER;
use crate::lease::{Change, Write};

/// The annotation that says why somebody takes a lease by hand.
pub const ANNOTATION: &str = "leasehold.dev/break-glass";

/// Groups that hold plain users and programs (`k8s.io/apiserver/pkg/authentication/user`, and
/// `serviceaccount.AllServiceAccountsGroup`): they would turn the guard off for everybody.
const EVERYBODY: [&str; 4] = [
    "system:authenticated",
    "system:unauthenticated",
    "system:serviceaccounts",
    "system:nodes",
];

/// The beginning of the group of all accounts of one namespace (`serviceaccount.ServiceAccountGroupPrefix`): whatever
/// runs there, electors above all.
const ACCOUNTS_OF_A_NAMESPACE: &str = "system:serviceaccounts:";

/// What is kept of a reason. An annotation may be 256 KiB long (`TotalAnnotationSizeLimitB`).
const REASON_LENGTH: usize = 300;

/// Who may write what a rule would deny: an operator must always be able to take a lease by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BreakGlassSettings {
    /// The groups of users whose writes are never denied: they pass with a warning and a line in the audit log. An
    /// empty list: nobody. The API server's own user is never one of them.
    #[serde(deserialize_with = "groups")]
    pub groups: Vec<String>,
    /// Whether such a write must also set the annotation leasehold.dev/break-glass to a reason. Set it where
    /// electors run with credentials of these groups.
    pub require_annotation: bool,
}

impl Default for BreakGlassSettings {
    fn default() -> Self {
        Self {
            groups: vec!["system:masters".to_owned()],
            require_annotation: false,
        }
    }
}

fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let Some(groups) = Option::<Vec<String>>::deserialize(deserializer)? else {
        return Err(de::Error::custom(
            "the list of groups is missing; write [] for nobody",
        ));
    };
    for group in &groups {
        if group.trim() != group || group.is_empty() {
            return Err(de::Error::custom(format_args!(
                "{group:?} is no group's name: nobody would be in it"
            )));
        }
        if let Some(namespace) = group.strip_prefix(ACCOUNTS_OF_A_NAMESPACE) {
            return Err(de::Error::custom(format_args!(
                "group {group:?} holds every service account of namespace {namespace:?}, its electors too, and none of them \
                 would be denied anything; name a group of operators, whom one account of theirs can impersonate \
                 (kubectl --as-group), or let an override set mode: audit there"
            )));
        }
        if EVERYBODY.contains(&group.as_str()) {
            return Err(de::Error::custom(format_args!(
                "group {group:?} holds plain users and programs, and none of them would be denied anything; name a group \
                 of operators"
            )));
        }
    }
    Ok(groups)
}

/// What came of breaking glass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakGlassOutcome {
    /// The write would have been denied and passed.
    Used,
    /// The user may, and gave a reason, but nothing would have been denied.
    Unneeded,
    /// The write set the annotation, and its user may not break glass.
    Refused,
}

impl BreakGlassOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Used, Self::Unneeded, Self::Refused];

    /// The outcome's name in logs, metrics and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Unneeded => "unneeded",
            Self::Refused => "refused",
        }
    }
}

/// That somebody broke glass, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlass {
    /// What came of it.
    pub outcome: BreakGlassOutcome,
    /// The group by which the user may; `None` for one who may not.
    pub group: Option<String>,
    /// The reason that the write gave; cut where it is long. `None` where it gave none.
    pub reason: Option<String>,
}

impl BreakGlassSettings {
    /// What came of breaking glass in this write, of which some rule `would_deny` or none. `None` where nobody
    /// asked for it.
    pub(super) fn judge(&self, write: &Write<'_>, would_deny: bool) -> Option<BreakGlass> {
        let reason = reason(write);
        if !would_deny && reason.is_none() {
            return None;
        }
        let group = self.group_of(write);
        let may = group.is_some() && (reason.is_some() || !self.require_annotation);
        let outcome = match (may, would_deny) {
            (true, true) => BreakGlassOutcome::Used,
            // A delete gives no reason of its own, so one that needs none did not ask.
            (true, false) if write.change != Change::Delete => BreakGlassOutcome::Unneeded,
            (false, _) if reason.is_some() && write.change != Change::Delete => BreakGlassOutcome::Refused,
            _ => return None,
        };
        Some(BreakGlass {
            outcome,
            group: group.map(str::to_owned),
            reason: reason.map(shortened),
        })
    }

    /// The group by which the writer may break glass.
    fn group_of(&self, write: &Write<'_>) -> Option<&str> {
        if write.writer.user == API_SERVER {
            return None;
        }
        let groups = self.groups.iter().map(String::as_str);
        groups
            .into_iter()
            .find(|group| write.writer.groups.iter().any(|it| it == group))
    }
}

/// The reason that this write gives.
fn reason<'a>(write: &'a Write<'_>) -> Option<&'a str> {
    let (before, after) = (&write.old.break_glass, &write.new.break_glass);
    let given = match write.change {
        Change::Delete => before,
        _ if before != after => after,
        _ => return None,
    };
    given
        .as_deref()
        .map(str::trim)
        .filter(|reason| !reason.is_empty())
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_LENGTH) {
        None => reason.to_owned(),
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            Writer,
            testing::{create, held, takeover},
        },
        policy::{Policy, PolicyError},
        verdict::{Decision, Outcome, Verdict},
    };

    fn early(user: &'static str, group: &'static str) -> Write<'static> {
        let mut write = takeover(
            held("a").renewed_at(0),
            held("b").transitions(4).acquired_at(4).renewed_at(4),
        )
        .stamped(0, 4);
        write.writer = Writer {
            user: user.into(),
            groups: vec![group.into(), "system:authenticated".into()],
            ..Writer::default()
        };
        write
    }

    fn because(mut write: Write<'static>, reason: &'static str) -> Write<'static> {
        write.new.break_glass = Some(reason.into());
        write
    }

    fn decide(policy: &str, write: &Write<'_>) -> (Outcome, Option<&'static str>) {
        let verdict = Policy::parse(policy).unwrap().decide(write);
        (verdict.outcome(), outcome(&verdict))
    }

    fn outcome(verdict: &Verdict) -> Option<&'static str> {
        verdict
            .break_glass
            .as_ref()
            .map(|break_glass| break_glass.outcome.as_str())
    }

    #[test]
    fn a_user_in_the_groups_passes_with_a_warning() {
        let verdict = Policy::default().decide(&early("alice", "system:masters"));
        assert_eq!(verdict.outcome(), Outcome::Warn);
        assert!(!verdict.would_be_denied());
        assert_eq!(verdict.denial(), None);
        let [violation] = verdict.violations.as_slice() else {
            panic!("{verdict:?}")
        };
        assert_eq!(violation.decision(), Decision::Warned);
        let expected = BreakGlass {
            outcome: BreakGlassOutcome::Used,
            group: Some("system:masters".into()),
            reason: None,
        };
        assert_eq!(verdict.break_glass, Some(expected));
    }

    #[test]
    fn who_may_and_why() {
        const ANNOTATED: &str = "breakGlass: {requireAnnotation: true}";
        const OPS: &str = "breakGlass: {groups: [ops, sre]}";
        const NOBODY: &str = "breakGlass: {groups: []}";
        let (allowed, denied) = (Outcome::Warn, Outcome::Deny);
        for (policy, user, group, reason, expected) in [
            ("", "alice", "system:masters", "", (allowed, Some("used"))),
            (
                "",
                "alice",
                "system:masters",
                "node is lost",
                (allowed, Some("used")),
            ),
            ("", "alice", "developers", "", (denied, None)),
            (
                "",
                "alice",
                "developers",
                "node is lost",
                (denied, Some("refused")),
            ),
            ("", "alice", "developers", "  ", (denied, None)),
            (
                "",
                "system:masters",
                "developers",
                "let me",
                (denied, Some("refused")),
            ),
            ("", "system:apiserver", "system:masters", "", (denied, None)),
            (
                "",
                "system:apiserver",
                "system:masters",
                "let me",
                (denied, Some("refused")),
            ),
            (OPS, "alice", "system:masters", "", (denied, None)),
            (OPS, "alice", "sre", "", (allowed, Some("used"))),
            (OPS, "alice", "sre-trainees", "", (denied, None)),
            (
                NOBODY,
                "alice",
                "system:masters",
                "now",
                (denied, Some("refused")),
            ),
            (ANNOTATED, "alice", "system:masters", "", (denied, None)),
            (ANNOTATED, "alice", "system:masters", " ", (denied, None)),
            (
                ANNOTATED,
                "alice",
                "system:masters",
                "node is lost",
                (allowed, Some("used")),
            ),
            (
                ANNOTATED,
                "alice",
                "developers",
                "node is lost",
                (denied, Some("refused")),
            ),
        ] {
            let mut write = early(user, group);
            if !reason.is_empty() {
                write = because(write, reason);
            }
            assert_eq!(
                decide(policy, &write),
                expected,
                "{policy:?} {user} {group} {reason:?}"
            );
        }
    }

    #[test]
    fn an_annotation_that_was_left_there_gives_no_reason() {
        let mut write = because(early("alice", "system:masters"), "last week's outage");
        write.old.break_glass.clone_from(&write.new.break_glass);
        assert_eq!(
            decide("breakGlass: {requireAnnotation: true}", &write),
            (Outcome::Deny, None)
        );
        write.new.break_glass = Some("today's outage".into());
        assert_eq!(
            decide("breakGlass: {requireAnnotation: true}", &write),
            (Outcome::Warn, Some("used"))
        );
        write.writer.groups.clear();
        write.old.break_glass.clone_from(&write.new.break_glass);
        assert_eq!(
            decide("", &write),
            (Outcome::Deny, None),
            "nobody asked in this write"
        );
    }

    #[test]
    fn what_needs_no_glass_breaks_none() {
        let fine = create(held("b"));
        assert_eq!(decide("", &fine), (Outcome::Allow, None));
        let mut fine = because(fine, "to be sure");
        assert_eq!(decide("", &fine), (Outcome::Allow, Some("refused")));
        fine.writer.groups.push("system:masters".into());
        assert_eq!(decide("", &fine), (Outcome::Allow, Some("unneeded")));
    }

    #[test]
    fn the_mode_holds_as_before() {
        let write = early("alice", "system:masters");
        assert_eq!(decide("mode: off", &write), (Outcome::Allow, None));
        let verdict = Policy::parse("mode: audit").unwrap().decide(&write);
        assert_eq!(
            (verdict.outcome(), outcome(&verdict)),
            (Outcome::Allow, Some("used"))
        );
        assert!(
            !verdict.would_be_denied(),
            "it would not be denied in mode enforce either"
        );
        assert_eq!(verdict.violations[0].decision(), Decision::WouldBeWarned);
    }

    #[test]
    fn a_reason_of_any_length_is_kept_short() {
        let write = because(early("alice", "system:masters"), "");
        let mut write = write;
        write.new.break_glass = Some("ü".repeat(100_000).into());
        let reason = Policy::default()
            .decide(&write)
            .break_glass
            .unwrap()
            .reason
            .unwrap();
        assert_eq!(reason.chars().count(), REASON_LENGTH + 1);
    }

    #[test]
    fn groups_that_hold_everybody_are_refused() {
        let of_a_namespace = ["system:serviceaccounts:shop", "system:serviceaccounts:"];
        for group in EVERYBODY.into_iter().chain(["", " ops"]).chain(of_a_namespace) {
            let refused: Result<_, PolicyError> =
                Policy::parse(&format!("breakGlass:\n  groups: [{group:?}]\n"));
            let message = refused.unwrap_err().to_string();
            assert!(
                message.starts_with("line 2, column 11, breakGlass.groups: "),
                "{message}"
            );
            if !group.trim().is_empty() && group.trim() == group {
                assert!(message.contains("name a group of operators"), "{message}");
            }
        }
        // One that only looks like it.
        assert!(Policy::parse("breakGlass:\n  groups: [\"system:serviceaccount-admins\"]\n").is_ok());
    }
}
