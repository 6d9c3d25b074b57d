//! From a policy document to the documents for the API server.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{
    assembly::{AdmissionPolicy, Assembly, Part},
    manifest::{self, Source},
    matching::matches,
    rule::InProcess,
    setting::Settings,
};
use crate::policy::{LeasePolicy, Policy, PolicyError, RuleName, lines::Lines};

/// The longest expression that CEL's parser reads, in code points (`github.com/google/cel-go/parser`:
/// `defaultExpressionSizeCodePointLimit`).
const LONGEST_EXPRESSION: usize = 100_000;

/// What an export is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether there is a policy that warns and annotates, beside the one that refuses. It costs every write that it
    /// matches.
    pub advice: bool,
    /// From where the API server is to have the policies.
    pub source: Source,
}

/// What the API server can hold of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    source: Source,
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
    /// The policies that it is part of: `deny` where it can refuse a write, `advice` where it can lead to anything.
    /// Empty where CEL cannot hold it, or where it is off.
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
    /// Nothing is left that refuses a write.
    #[error(
        "by this policy the API server would refuse nothing: its mode is not enforce, or the actions of all rules that \
         CEL can hold are not; a policy that warns and annotates is exported with --advice"
    )]
    NoRefusal,
}

impl Export {
    /// What the API server can hold of a policy document.
    ///
    /// # Errors
    /// [`ExportError`]. What the document states and CEL cannot hold is none: see [`Self::obstacles`].
    pub fn of(document: &str, options: ExportOptions) -> Result<Self, ExportError> {
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
                policies: Part::ALL
                    .map(Part::as_str)
                    .into_iter()
                    .filter(|name| policies.contains(name))
                    .collect(),
                left: in_process.left(),
            });
        }
        let mut policies = assembly.finish();
        if policies.is_empty() {
            return Err(ExportError::Nothing);
        }
        if !options.advice {
            policies.retain(|policy| policy.part == Part::Deny);
            if policies.is_empty() {
                return Err(ExportError::NoRefusal);
            }
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
            source: options.source,
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
        manifest::objects(&self.policies, self.source)
    }

    /// The policies and bindings as YAML documents, with what is left to the webhook in comments. The same policy gives
    /// the same text.
    pub fn to_yaml(&self) -> String {
        manifest::yaml(&self.policies, self.source, &self.rules, &self.obstacles)
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
