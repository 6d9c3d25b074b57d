//! The documents for the API server in the making, finding by finding.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    rule::{Check, InProcess},
    setting::{Constant, Setting, Settings, Variable},
    vocabulary,
};
use crate::{
    cel,
    lease::{Purpose, Tolerance},
    policy::{Action, BREAK_GLASS_ANNOTATION, BreakGlassSettings, CATALOGUE, Purposes, RuleName, profiles},
};

/// One ValidatingAdmissionPolicy and its binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdmissionPolicy {
    pub(super) level: Level,
    pub(super) variables: Vec<Variable>,
    pub(super) validations: Vec<Validation>,
    /// For each rule what the API server's audit log is told, and empty where it does not fire. The binding's action
    /// Audit would do for one finding of a write only: the first.
    pub(super) audit_annotations: Vec<(&'static str, String)>,
}

/// One validation of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validation {
    /// False where the rule fires and leads to the policy's action.
    pub(super) expression: String,
    /// What users read where `message_expression` fails.
    pub(super) message: String,
    pub(super) message_expression: String,
}

/// What a policy's bindings do. One policy has one: validationActions belong to a binding, and a binding selects writes
/// by less than overrides do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Deny,
    Warn,
    Audit,
}

impl Level {
    pub(super) const ALL: [Self; 3] = [Self::Deny, Self::Warn, Self::Audit];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
            Self::Audit => "audit",
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Deny => Action::Enforce,
            Self::Warn => Action::Warn,
            Self::Audit => Action::Audit,
        }
    }

    /// What the binding does about a validation that fails. Annotations tell the audit log in any case.
    pub(super) fn validation_action(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

/// The policies in the making.
pub(super) struct Assembly {
    mode: Setting,
    /// Whether a broken glass lowers denials to warnings.
    break_glass: Option<Setting>,
    variables: Vec<Variable>,
    validations: [Vec<Validation>; 3],
    /// For each rule, under which condition it tells what.
    annotations: [BTreeMap<RuleName, Vec<(String, String)>>; 3],
}

impl Assembly {
    pub(super) fn new(
        tolerance: Tolerance,
        settings: Settings,
        mode: Setting,
        break_glass: &BreakGlassSettings,
        rules: &[(RuleName, InProcess)],
    ) -> Self {
        let mut variables = vocabulary::variables(tolerance);
        variables.extend(settings.variables);
        variables.push(profile(rules));
        let broken = break_glass_expression(break_glass).map(|expression| {
            variables.push(Variable {
                name: "breakGlass".to_owned(),
                expression,
            });
            let (warn, enforce) = (Action::Warn.number(), Action::Enforce.number());
            variables.push(Variable {
                name: "breakGlassCap".to_owned(),
                expression: format!("variables.breakGlass ? {warn} : {enforce}"),
            });
            Setting::computed("variables.breakGlassCap".to_owned(), [warn, enforce])
        });
        Self {
            mode,
            break_glass: broken,
            variables,
            validations: Default::default(),
            annotations: Default::default(),
        }
    }

    /// Adds one finding of a rule to every policy whose action it can lead to; the names of these.
    pub(super) fn add(&mut self, rule: RuleName, index: usize, check: &Check) -> Vec<&'static str> {
        let entry = CATALOGUE.iter().find(|entry| entry.name == rule);
        let mut asked: Vec<Setting> = check.actions.clone();
        asked.extend(entry.and_then(|entry| purpose_cap(entry.purposes)));
        asked.extend(profile_cap(rule));
        asked.extend(self.break_glass.clone());
        let taken = asked.iter().cloned().chain([self.mode.clone()]);
        let name = format!("{}{}", pascal_case(rule.as_str()), index + 1);
        let taken = self.named(format!("taken{name}"), Setting::least(taken));
        let asked = self.named(format!("asked{name}"), Setting::least(asked));
        let (fires, tells) = (format!("fires{name}"), format!("tells{name}"));
        for (name, expression) in [(&fires, &check.fires), (&tells, &check.message)] {
            self.variables.push(Variable {
                name: name.clone(),
                expression: expression.clone(),
            });
        }
        let summary = entry.map_or_else(String::new, |entry| in_a_sentence(&entry.summary()));

        let mut names = Vec::new();
        for (level, (validations, annotations)) in Level::ALL
            .into_iter()
            .zip(self.validations.iter_mut().zip(&mut self.annotations))
        {
            let number = level.action().number();
            let counts = match taken.is(number) {
                Some(false) => continue,
                Some(true) => format!("variables.{fires}"),
                None => format!("variables.{fires} && {} == {number}", taken.number),
            };
            annotations.entry(rule).or_default().push((
                counts.clone(),
                format!("{} + variables.{tells}", decision(level, &asked)),
            ));
            // What nobody is told of but the audit log needs no validation.
            if level != Level::Audit {
                validations.push(Validation {
                    expression: format!("!({counts})"),
                    message: format!("{rule}: {summary}. See: leasehold explain {rule}"),
                    message_expression: format!(
                        "{} + variables.{tells} + {}",
                        cel::literal(&format!("{rule}: ")),
                        cel::literal(&format!(". See: leasehold explain {rule}")),
                    ),
                });
            }
            names.push(level.as_str());
        }
        names
    }

    /// A number under a name of its own, where it has to be computed.
    fn named(&mut self, name: String, mut setting: Setting) -> Setting {
        if setting.number.starts_with('[') || setting.number.starts_with('(') {
            if let Some(same) = self.variables.iter().find(|it| it.expression == setting.number) {
                setting.number = format!("variables.{}", same.name);
                return setting;
            }
            self.variables.push(Variable {
                name: name.clone(),
                expression: std::mem::take(&mut setting.number),
            });
            setting.number = format!("variables.{name}");
        }
        setting
    }

    /// The policies that hold something, each with the variables that it needs.
    pub(super) fn finish(self) -> Vec<AdmissionPolicy> {
        let mut policies = Vec::new();
        for (level, (validations, annotations)) in Level::ALL
            .into_iter()
            .zip(self.validations.into_iter().zip(self.annotations))
        {
            if annotations.is_empty() {
                continue;
            }
            let audit_annotations: Vec<_> = annotations
                .into_iter()
                .map(|(rule, findings)| {
                    let choices: String = findings
                        .into_iter()
                        .map(|(counts, told)| format!("{counts}\n? {told} : "))
                        .collect();
                    (rule.as_str(), format!("{choices}''"))
                })
                .collect();
            let mut needed: BTreeSet<String> = BTreeSet::new();
            for validation in &validations {
                needed.extend(references(&validation.expression));
                needed.extend(references(&validation.message_expression));
            }
            for (_, expression) in &audit_annotations {
                needed.extend(references(expression));
            }
            // A variable refers to none that stands after it.
            let mut variables: Vec<Variable> = Vec::new();
            for variable in self.variables.iter().rev() {
                if needed.contains(&variable.name) {
                    needed.extend(references(&variable.expression));
                    variables.push(variable.clone());
                }
            }
            variables.reverse();
            policies.push(AdmissionPolicy {
                level,
                variables,
                validations,
                audit_annotations,
            });
        }
        policies
    }
}

/// What came of a violation, as the webhook's annotations say it: CEL of a string.
fn decision(level: Level, asked: &Setting) -> String {
    let (warn, enforce) = (Action::Warn.number(), Action::Enforce.number());
    match (level, asked.is(enforce), asked.is(warn)) {
        (Level::Deny, ..) => cel::literal("denied: "),
        (Level::Warn, ..) => cel::literal("warned: "),
        (Level::Audit, Some(true), _) => cel::literal("would be denied: "),
        (Level::Audit, _, Some(true)) => cel::literal("would be warned: "),
        (Level::Audit, Some(false), Some(false)) => cel::literal("audited: "),
        _ => format!(
            "['', 'audited: ', 'would be warned: ', 'would be denied: '][{}]",
            asked.number
        ),
    }
}

/// The names in `variables.NAME`.
fn references(expression: &str) -> impl Iterator<Item = String> {
    expression
        .split("variables.")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_alphanumeric).collect())
}

/// The profile of the write, as far as it matters to the rules that are there: empty for most writes.
fn profile(rules: &[(RuleName, InProcess)]) -> Variable {
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
    Variable {
        name: "profile".to_owned(),
        expression,
    }
}

/// The most that a rule leads to by what the lease is for; `None` where that changes nothing.
fn purpose_cap(purposes: Purposes) -> Option<Setting> {
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
fn profile_cap(rule: RuleName) -> Option<Setting> {
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
fn break_glass_expression(settings: &BreakGlassSettings) -> Option<String> {
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

/// `takeover-before-expiry` as `TakeoverBeforeExpiry`.
pub(super) fn pascal_case(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut characters = word.chars();
            let first = characters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(characters)
        })
        .collect()
}

/// A sentence without its full stop, its first letter small.
fn in_a_sentence(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut characters = sentence.chars();
    characters
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(characters)
        .collect()
}
