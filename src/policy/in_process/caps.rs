//! The most that a rule leads to for a write: by its purpose, its profile, and a broken glass.

use std::collections::BTreeSet;

use super::{
    rule::InProcess,
    setting::{Constant, Setting, Variable},
};
use crate::{
    cel,
    lease::Purpose,
    policy::{Action, BREAK_GLASS_ANNOTATION, BreakGlassSettings, Purposes, RuleName, profiles},
};

/// The profile of the write, as far as it matters to the rules that are there: empty for most writes.
pub(super) fn profile(rules: &[(RuleName, InProcess)]) -> Variable {
    let matters = |row: &profiles::Row| {
        row.caps.iter().any(|(name, _)| {
            rules
                .iter()
                .any(|(rule, in_process)| rule.as_str() == *name && !in_process.checks().is_empty())
        })
    };
    let last = profiles::PROFILES
        .iter()
        .rposition(matters)
        .map_or(0, |index| index + 1);
    let mut expression = String::new();
    for row in profiles::PROFILES.iter().take(last) {
        let lines: Vec<_> = row.cel.trim().lines().map(str::trim).collect();
        expression.push_str(&format!("{} ? {}\n: ", lines.join("\n"), cel::literal(row.name)));
    }
    expression.push_str("''");
    Variable::shared("profile", expression)
}

/// The most that a rule leads to by what the lease is for; `None` where that changes nothing.
pub(super) fn purpose_cap(purposes: Purposes) -> Option<Setting> {
    let enforce = Action::Enforce.number();
    let mut expression = String::new();
    let mut values = BTreeSet::from([enforce]);
    for purpose in Purpose::ALL {
        let number = purposes.cap(purpose).number();
        if number != enforce {
            values.insert(number);
            expression.push_str(&format!(
                "variables.purpose == {} ? {number} : ",
                cel::literal(purpose.as_str())
            ));
        }
    }
    (!expression.is_empty()).then(|| Setting::computed(format!("({expression}{enforce})"), values))
}

/// The most that a rule leads to by the profile of the write; `None` where no profile touches it.
pub(super) fn profile_cap(rule: RuleName) -> Option<Setting> {
    let mut expression = String::new();
    let mut values = BTreeSet::from([Action::Enforce.number()]);
    for action in Action::ALL {
        let capped: Vec<_> = profiles::PROFILES
            .iter()
            .filter(|row| row.caps.contains(&(rule.as_str(), action)))
            .map(|row| cel::literal(row.name))
            .collect();
        if !capped.is_empty() {
            let number = action.number();
            values.insert(number);
            expression.push_str(&format!(
                "variables.profile in [{}] ? {number} : ",
                capped.join(", ")
            ));
        }
    }
    let enforce = Action::Enforce.number();
    (!expression.is_empty()).then(|| Setting::computed(format!("({expression}{enforce})"), values))
}

/// Whether the writer may break glass in this write, as [`BreakGlassSettings`] has it; `None` where nobody may.
pub(super) fn break_glass_expression(settings: &BreakGlassSettings) -> Option<String> {
    let BreakGlassSettings {
        groups,
        require_annotation,
    } = settings;
    if groups.is_empty() {
        return None;
    }
    let groups: Vec<_> = groups.iter().map(|group| cel::literal(group)).collect();
    let mut expression = format!(
        "request.userInfo.username != {}\n&& request.userInfo.?groups.orValue([]).exists(group, group in [{}])",
        cel::literal(profiles::API_SERVER),
        groups.join(", ")
    );
    if *require_annotation {
        let annotation = cel::literal(BREAK_GLASS_ANNOTATION);
        let of = |object: &str| format!("{object}.metadata.?annotations[?{annotation}]");
        expression.push_str(&format!(
            "\n&& {new}.orValue('').trim() != ''\n&& !(variables.update && {new} == {old})",
            new = of("object"),
            old = of("oldObject"),
        ));
    }
    Some(expression)
}
