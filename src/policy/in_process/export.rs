//! From a policy document to the documents for the API server.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{
    manifest,
    matching::matches,
    rule::{Check, InProcess},
    setting::{Constant, Setting, Settings, Variable},
    vocabulary,
};
use crate::{
    cel,
    policy::{
        Action, BREAK_GLASS_ANNOTATION, BreakGlassSettings, CATALOGUE, LeasePolicy, Policy, PolicyError,
        RuleName, lines::Lines, profiles,
    },
};

/// The longest expression that CEL's parser reads, in code points (`github.com/google/cel-go/parser`:
/// `defaultExpressionSizeCodePointLimit`).
const LONGEST_EXPRESSION: usize = 100_000;

/// What the API server can hold of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    policies: Vec<AdmissionPolicy>,
    rules: Vec<RuleExport>,
    obstacles: Vec<Obstacle>,
}

/// What the export holds of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleExport {
    /// The rule's name.
    pub rule: &'static str,
    /// Which part of the rule CEL can hold: `fully`, `partly` or `not`.
    pub in_process: &'static str,
    /// The policies that it is part of: `deny`, `warn`, `audit`. Empty where CEL cannot hold it, or where it is off.
    pub policies: Vec<&'static str>,
    /// What is left to the webhook and why; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<&'static str>,
}

/// Something that a policy says of its own accord and that CEL cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// The line of the policy on which it stands, from 1.
    pub line: Option<u64>,
    /// What stands there, as in `rules.flapping`.
    pub field: String,
    /// Why CEL cannot hold it.
    pub reason: &'static str,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "line {line}, ")?;
        }
        write!(formatter, "{}: {}", self.field, self.reason)
    }
}

/// Why a policy has no half for the API server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The policy itself is bad.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The matches of some overrides are too long for one expression.
    #[error(
        "line {line}, override {number}: its match is the longest of some that take {length} characters of CEL, and the \
         API server reads {LONGEST_EXPRESSION} in one expression; use fewer patterns, with *"
    )]
    TooLong {
        /// The override's line, from 1.
        line: u64,
        /// Its number, from 1.
        number: usize,
        /// The length of the CEL.
        length: usize,
    },
    /// Nothing is left to export.
    #[error(
        "nothing of this policy is for the API server to hold: its mode is off, or the actions of all rules that CEL \
         can hold are"
    )]
    Nothing,
}

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
    const ALL: [Self; 3] = [Self::Deny, Self::Warn, Self::Audit];

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

impl Export {
    /// What the API server can hold of a policy document.
    ///
    /// # Errors
    /// [`ExportError`]. What the document states and CEL cannot hold is none: see [`Self::obstacles`].
    pub fn of(document: &str) -> Result<Self, ExportError> {
        let policy = Policy::parse(document)?;
        let lines = Lines::of(document).unwrap_or_default();
        let line = |path: &str| lines.position(path).map(|(line, _)| line);
        let LeasePolicy {
            mode,
            rules,
            overrides,
            break_glass,
            ..
        } = policy.document();

        let mut settings = Settings::default();
        settings.define(
            "labels",
            "(variables.update ? oldObject : object).metadata.?labels.orValue({})",
        );
        let conditions: Vec<_> = overrides.iter().map(|one| matches(&one.r#match)).collect();
        settings.overrides(&conditions);
        let stated_modes = overrides
            .iter()
            .enumerate()
            .filter_map(|(index, one)| one.mode.map(|mode| (index, mode)));
        let mode = settings.setting("mode", mode, stated_modes);
        let rules = rules.in_process(policy.tolerance(), overrides, &mut settings);

        let obstacles = obstacles(&policy, &rules, &line);
        let mut assembly = Assembly::new(policy.tolerance(), settings, mode, break_glass, &rules);
        let mut exports = Vec::new();
        for (rule, in_process) in &rules {
            let mut policies = BTreeSet::new();
            for (index, check) in in_process.checks().iter().enumerate() {
                policies.extend(assembly.add(*rule, index, check));
            }
            exports.push(RuleExport {
                rule: rule.as_str(),
                in_process: in_process.as_str(),
                policies: Level::ALL
                    .map(Level::as_str)
                    .into_iter()
                    .filter(|name| policies.contains(name))
                    .collect(),
                left: in_process.left(),
            });
        }
        let policies = assembly.finish();
        if policies.is_empty() {
            return Err(ExportError::Nothing);
        }
        if let Some(length) = longest_expression(&policies).filter(|length| *length > LONGEST_EXPRESSION) {
            let longest = conditions
                .iter()
                .enumerate()
                .max_by_key(|(_, condition)| condition.len());
            let index = longest.map_or(0, |(index, _)| index);
            return Err(ExportError::TooLong {
                line: line(&format!("overrides/{index}")).unwrap_or_default(),
                number: index + 1,
                length,
            });
        }
        Ok(Self {
            policies,
            rules: exports,
            obstacles,
        })
    }

    /// What the document states and CEL cannot hold, in the order of the catalogue and then of the overrides.
    pub fn obstacles(&self) -> &[Obstacle] {
        &self.obstacles
    }

    /// Rule by rule, what the export holds, in the order of the catalogue.
    pub fn rules(&self) -> &[RuleExport] {
        &self.rules
    }

    /// The policies and bindings as JSON objects, in the order in which they are to be applied.
    pub fn objects(&self) -> Vec<Value> {
        manifest::objects(&self.policies)
    }

    /// The policies and bindings as YAML documents, with what is left to the webhook in comments. The same policy gives
    /// the same text.
    pub fn to_yaml(&self) -> String {
        manifest::yaml(&self.policies, &self.rules, &self.obstacles)
    }
}

/// The length of the longest expression, in characters.
fn longest_expression(policies: &[AdmissionPolicy]) -> Option<usize> {
    policies
        .iter()
        .flat_map(|policy| &policy.variables)
        .map(|variable| variable.expression.chars().count())
        .max()
}

/// What a document states of rules that CEL cannot hold.
fn obstacles(
    policy: &Policy,
    rules: &[(RuleName, InProcess)],
    line: &dyn Fn(&str) -> Option<u64>,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let stated = serde_json::to_value(policy.document()).unwrap_or_default();
    let overrides = policy.document().overrides.len();
    let places = std::iter::once((String::new(), String::new())).chain(
        (0..overrides).map(|index| (format!("overrides/{index}/"), format!("override {}, ", index + 1))),
    );
    for (place, name) in places {
        for (rule, in_process) in rules {
            let InProcess::Not { reason } = in_process else {
                continue;
            };
            let path = format!("{place}rules/{rule}");
            let settings = stated.pointer(&format!("/{path}"));
            let is_off = settings.and_then(|settings| settings.get("action")) == Some(&Value::from("off"));
            // The policy's own rules are all there, with their defaults; only those of the document have a line.
            if let Some(line) = line(&path).filter(|_| settings.is_some() && !is_off) {
                found.push(Obstacle {
                    line: Some(line),
                    field: format!("{name}rules.{rule}"),
                    reason,
                });
            }
        }
    }
    found
}

/// The policies in the making.
struct Assembly {
    mode: Setting,
    /// Whether a broken glass lowers denials to warnings.
    break_glass: Option<Setting>,
    variables: Vec<Variable>,
    validations: [Vec<Validation>; 3],
    /// For each rule, under which condition it tells what.
    annotations: [BTreeMap<RuleName, Vec<(String, String)>>; 3],
}

impl Assembly {
    fn new(
        tolerance: crate::lease::Tolerance,
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
    fn add(&mut self, rule: RuleName, index: usize, check: &Check) -> Vec<&'static str> {
        let mut asked: Vec<Setting> = check.actions.clone();
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
        let summary = CATALOGUE
            .iter()
            .find(|entry| entry.name == rule)
            .map_or_else(String::new, |entry| in_a_sentence(&entry.summary()));

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
    fn finish(self) -> Vec<AdmissionPolicy> {
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
