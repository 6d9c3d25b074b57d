//! What applies to one lease and writer, and which line of the document decided it.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Action, LeasePolicy, Policy, PolicyError, RuleName, Settings, lines::Lines, overrides::Labels};
use crate::lease::{LeaseName, Purpose};

/// What applies to one lease and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Every setting that applies, in the order of the default document.
    pub settings: Vec<Setting>,
    /// What each rule leads to by what the lease is for, in the order of the catalogue.
    pub rules: Vec<RuleExplanation>,
    /// Every override, in the order of the document.
    pub overrides: Vec<OverrideExplanation>,
}

/// What a rule leads to by what the lease is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleExplanation {
    /// The rule.
    pub rule: RuleName,
    /// The most that it leads to for each purpose, under the mode that applies.
    #[serde(serialize_with = "by_purpose")]
    pub actions: [(Purpose, Action); Purpose::ALL.len()],
}

fn by_purpose<S: Serializer>(actions: &[(Purpose, Action)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(actions.iter().map(|(purpose, action)| (purpose.as_str(), action)))
}

/// One setting that applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its path in the document, as in `rules.duration-out-of-bounds.max`.
    pub setting: String,
    /// Its value, as it would stand in the document.
    pub value: String,
    /// What decided it.
    pub decided_by: DecidedBy,
    /// The line that decided it, from 1; `None` for a default.
    pub line: Option<u64>,
}

/// What decided a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The document does not state it.
    Default,
    /// The document states it for all leases.
    Policy,
    /// The override of this number, from 1.
    Override(usize),
}

impl std::fmt::Display for DecidedBy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Policy => formatter.write_str("policy"),
            Self::Override(number) => write!(formatter, "override {number}"),
        }
    }
}

impl Serialize for DecidedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether an override is about the lease, as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverrideExplanation {
    /// Its number, from 1.
    pub number: usize,
    /// The line on which it begins, from 1.
    pub line: Option<u64>,
    /// Whether it matches.
    pub matches: bool,
    /// The first criterion that does not hold: `namespaces`, `names`, `labels` or `serviceAccounts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<&'static str>,
}

impl Explanation {
    /// Explains what a policy document means for a lease with these labels, as this user writes it: the name that the API
    /// server gives the user, or an empty one for a user that is no service account.
    ///
    /// # Errors
    /// [`PolicyError`] as by [`Policy::parse`].
    pub fn of(
        document: &str,
        lease: &LeaseName<'_>,
        labels: &Labels<'_>,
        user: &str,
    ) -> Result<Self, PolicyError> {
        let policy = Policy::parse(document)?;
        let lines = Lines::of(document).map_err(|error| PolicyError::from_yaml(&error, document))?;
        let line = |path: &str| lines.position(path).map(|(line, _)| line);
        let LeasePolicy { overrides, .. } = policy.document();

        let mut settings = Vec::new();
        leaves("", &json(policy.document()), &mut |path, value| {
            let about_itself = ["apiVersion", "kind"].contains(&path) || path.starts_with("overrides");
            if !about_itself {
                let line = line(path);
                settings.push(Setting {
                    setting: path.replace('/', "."),
                    value: plain(value),
                    decided_by: line.map_or(DecidedBy::Default, |_| DecidedBy::Policy),
                    line,
                });
            }
        });
        let mut explained = Vec::new();
        for (index, one) in overrides.iter().enumerate() {
            let failing = one.r#match.failing(lease, labels, user);
            explained.push(OverrideExplanation {
                number: index + 1,
                line: line(&format!("overrides/{index}")),
                matches: failing.is_none(),
                failing: failing.map(super::Criterion::as_str),
            });
            if failing.is_some() {
                continue;
            }
            leaves("", &json(one), &mut |path, value| {
                let name = path.replace('/', ".");
                if let Some(setting) = settings.iter_mut().find(|it| it.setting == name) {
                    setting.value = plain(value);
                    setting.decided_by = DecidedBy::Override(index + 1);
                    setting.line = line(&format!("overrides/{index}/{path}"));
                }
            });
        }
        let Settings { mode, rules } = policy.settings_for(lease, labels, user);
        let rules = rules.actions().map(|(entry, action)| RuleExplanation {
            rule: entry.name,
            actions: Purpose::ALL.map(|purpose| (purpose, mode.cap(action.min(entry.purposes.cap(purpose))))),
        });
        Ok(Self {
            settings,
            rules: rules.collect(),
            overrides: explained,
        })
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Calls `each` with every value that holds no others by name, and its path.
fn leaves(path: &str, value: &Value, each: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let separator = if path.is_empty() { "" } else { "/" };
                leaves(&format!("{path}{separator}{name}"), field, each);
            }
        }
        _ => each(path, value),
    }
}

/// A value as it stands in the document.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
