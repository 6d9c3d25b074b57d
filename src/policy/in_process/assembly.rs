//! The documents for the API server in the making, finding by finding.

use std::collections::BTreeMap;

use super::{
    caps::{break_glass_expression, profile, profile_cap, purpose_cap},
    inline::inline,
    rule::{Check, InProcess},
    setting::{Constant, Setting, Settings, Variable},
    vocabulary,
};
use crate::{
    cel,
    lease::Tolerance,
    policy::{Action, BreakGlassSettings, CATALOGUE, RuleName},
};

/// One ValidatingAdmissionPolicy and its binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdmissionPolicy {
    pub(super) part: Part,
    pub(super) variables: Vec<Variable>,
    pub(super) validations: Vec<Validation>,
    /// For each rule what the API server's audit log gets, and empty where it does not fire. The binding's action Audit
    /// would keep one finding of a write only: the first.
    pub(super) audit_annotations: Vec<(&'static str, String)>,
}

/// One validation of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validation {
    /// False where a rule fires and leads to the policy's action.
    pub(super) expression: String,
    /// What users read where `message_expression` fails.
    pub(super) message: String,
    /// The API server evaluates it for every write, also where `expression` is true, and computes all its variables
    /// once more for it (`k8s.io/apiserver/pkg/admission/plugin/policy/validating/validator.go`): so it asks first
    /// whether there is anything to say.
    pub(super) message_expression: String,
}

/// What a policy does about the rules that fire. An action is a property of a binding, and a binding selects writes by
/// less than overrides do: so there is one policy that refuses, and one for all that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Refuses, and does nothing else: the price of a write is what counts.
    Deny,
    /// Warns, and annotates the API server's audit log with all that was found, also with what the other part refuses.
    Advice,
}

impl Part {
    pub(super) const ALL: [Self; 2] = [Self::Deny, Self::Advice];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Advice => "advice",
        }
    }

    /// What the binding does about a validation that fails.
    pub(super) fn validation_action(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Advice => "Warn",
        }
    }
}

/// The policies in the making.
pub(super) struct Assembly {
    mode: Setting,
    /// Whether a broken glass lowers denials to warnings.
    break_glass: Option<Setting>,
    variables: Vec<Variable>,
    findings: Vec<Candidate>,
}

/// What one check of a rule may find.
struct Candidate {
    rule: RuleName,
    /// Its number among the checks of its rule, from 1.
    number: usize,
    fires: String,
    tells: String,
    /// The least action that the rule, the purpose, the profile and a broken glass ask for.
    asked: Setting,
    /// The same under the mode.
    taken: Setting,
}

impl Candidate {
    /// The condition under which it refuses a write; `None` where it never does.
    fn refuses(&self) -> Option<String> {
        let (fires, number) = (&self.fires, Action::Enforce.number());
        match self.taken.is(number) {
            Some(false) => None,
            Some(true) => Some(format!("({fires})")),
            None => Some(format!("({fires})\n&& {} == {number}", self.taken.number)),
        }
    }

    fn is_part_of(&self, part: Part) -> bool {
        match part {
            Part::Deny => self.taken.is(Action::Enforce.number()) != Some(false),
            Part::Advice => self.taken.is(Action::Off.number()) != Some(true),
        }
    }

    /// What a user reads: the rule, what it tells, and where to read on.
    fn message(&self, tells: &str) -> String {
        let rule = self.rule;
        format!(
            "{}\n+ {tells}\n+ {}",
            cel::literal(&format!("{rule}: ")),
            cel::literal(&format!(". See: leasehold explain {rule}")),
        )
    }
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
            variables.push(Variable::shared("breakGlass", expression));
            let (warn, enforce) = (Action::Warn.number(), Action::Enforce.number());
            Setting::computed(
                format!("(variables.breakGlass ? {warn} : {enforce})"),
                [warn, enforce],
            )
        });
        Self {
            mode,
            break_glass: broken,
            variables,
            findings: Vec::new(),
        }
    }

    /// Adds one finding of a rule; the names of the policies that it is part of.
    pub(super) fn add(&mut self, rule: RuleName, index: usize, check: &Check) -> Vec<&'static str> {
        let entry = CATALOGUE.iter().find(|entry| entry.name == rule);
        let mut asked: Vec<Setting> = check.actions.clone();
        asked.extend(entry.and_then(|entry| purpose_cap(entry.purposes)));
        asked.extend(profile_cap(rule));
        asked.extend(self.break_glass.clone());
        let candidate = Candidate {
            rule,
            number: index + 1,
            fires: check.fires.clone(),
            tells: check.message.clone(),
            taken: Setting::least(asked.iter().cloned().chain([self.mode.clone()])),
            asked: Setting::least(asked),
        };
        let names = Part::ALL
            .into_iter()
            .filter(|part| candidate.is_part_of(*part))
            .map(Part::as_str)
            .collect();
        self.findings.push(candidate);
        names
    }

    /// The policies that hold something, each with the variables that it needs.
    pub(super) fn finish(self) -> Vec<AdmissionPolicy> {
        let has = |part: Part| self.findings.iter().any(|finding| finding.is_part_of(part));
        Part::ALL
            .into_iter()
            .filter(|part| has(*part))
            .map(|part| match part {
                Part::Deny => self.deny(),
                Part::Advice => self.advice(),
            })
            .collect()
    }

    /// One validation for all rules: each costs a write, whatever it asks.
    fn deny(&self) -> AdmissionPolicy {
        let mut refusal = String::new();
        for finding in &self.findings {
            if let Some(denied) = finding.refuses() {
                let message = finding.message(&finding.tells);
                refusal.push_str(&format!("{denied}\n? {message}\n: "));
            }
        }
        refusal.push_str("''");
        let mut variables = self.variables.clone();
        variables.push(Variable::shared("refusal", refusal));
        let validations = vec![Validation {
            expression: "variables.refusal == ''".to_owned(),
            message: "A rule of Leasehold refuses this write. See: leasehold explain".to_owned(),
            message_expression: "variables.refusal".to_owned(),
        }];
        AdmissionPolicy {
            part: Part::Deny,
            variables: inline(variables, expressions(&validations, &[])),
            validations,
            audit_annotations: Vec::new(),
        }
    }

    fn advice(&self) -> AdmissionPolicy {
        let mut variables = self.variables.clone();
        let (mut validations, mut annotations) = (Vec::new(), BTreeMap::<RuleName, String>::new());
        for finding in self
            .findings
            .iter()
            .filter(|finding| finding.is_part_of(Part::Advice))
        {
            let name = format!("{}{}", pascal_case(finding.rule.as_str()), finding.number);
            let [tells, taken, asked] = ["tells", "taken", "asked"].map(|what| format!("{what}{name}"));
            let told = format!("({})\n? {}\n: ''", finding.fires, finding.tells);
            variables.push(Variable::shared(&tells, told));
            variables.push(Variable::shared(&taken, finding.taken.number.clone()));
            variables.push(Variable::shared(&asked, finding.asked.number.clone()));
            let fires = format!("variables.{tells} != ''");
            let may_be_off = finding.taken.is(Action::Off.number()).is_none();
            let on = if may_be_off {
                format!(" && variables.{taken} > 0")
            } else {
                String::new()
            };
            annotations.entry(finding.rule).or_default().push_str(&format!(
                "{fires}{on}\n? {} + variables.{tells} : ",
                decision(
                    finding,
                    &format!("variables.{taken}"),
                    &format!("variables.{asked}")
                )
            ));
            let warn = Action::Warn.number();
            if finding.taken.is(warn) != Some(false) {
                let warned = match finding.taken.is(warn) {
                    Some(_) => fires,
                    None => format!("{fires} && variables.{taken} == {warn}"),
                };
                let rule = finding.rule;
                let summary = CATALOGUE
                    .iter()
                    .find(|entry| entry.name == rule)
                    .map_or_else(String::new, |entry| in_a_sentence(&entry.summary()));
                let message = finding.message(&format!("variables.{tells}"));
                validations.push(Validation {
                    expression: format!("!({warned})"),
                    message: format!("{rule}: {summary}. See: leasehold explain {rule}"),
                    message_expression: format!("variables.{tells} == ''\n? '' : {message}"),
                });
            }
        }
        let audit_annotations: Vec<_> = annotations
            .into_iter()
            .map(|(rule, choices)| (rule.as_str(), format!("{choices}''")))
            .collect();
        AdmissionPolicy {
            part: Part::Advice,
            variables: inline(variables, expressions(&validations, &audit_annotations)),
            validations,
            audit_annotations,
        }
    }
}

/// All that asks for variables.
fn expressions<'a>(
    validations: &'a [Validation],
    annotations: &'a [(&'static str, String)],
) -> impl Iterator<Item = &'a str> {
    let of_validations = validations
        .iter()
        .flat_map(|validation| [&validation.expression, &validation.message_expression]);
    let of_annotations = annotations.iter().map(|(_, expression)| expression);
    of_validations.chain(of_annotations).map(String::as_str)
}

/// What came of a finding, as the webhook's annotations say it: CEL of a string. `taken` and `asked` are CEL of the
/// actions' numbers.
fn decision(finding: &Candidate, taken: &str, asked: &str) -> String {
    let (warn, enforce) = (Action::Warn.number(), Action::Enforce.number());
    let audited = match (finding.asked.is(enforce), finding.asked.is(warn)) {
        (Some(true), _) => cel::literal("would be denied: "),
        (_, Some(true)) => cel::literal("would be warned: "),
        (Some(false), Some(false)) => cel::literal("audited: "),
        _ => format!("['', 'audited: ', 'would be warned: ', 'would be denied: '][{asked}]"),
    };
    let mut expression = String::new();
    for (number, word) in [(enforce, "denied: "), (warn, "warned: ")] {
        match finding.taken.is(number) {
            Some(true) => return cel::literal(word),
            Some(false) => {}
            None => expression.push_str(&format!("{taken} == {number} ? {} : ", cel::literal(word))),
        }
    }
    format!("({expression}{audited})")
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
