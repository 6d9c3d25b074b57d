//! The policy's settings as CEL: constants where every lease has the same, and variables where overrides differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use crate::{
    cel,
    policy::{Action, AdvisoryAction, Mode, Seconds},
};

/// A value of the policy that CEL can hold.
pub trait Constant: Display {
    /// The value as a number, never negative: an action or a mode by its rank (off 0, audit 1, warn 2, enforce 3), a
    /// duration in seconds.
    fn number(&self) -> i64;
}

impl Constant for Action {
    fn number(&self) -> i64 {
        match self {
            Self::Off => 0,
            Self::Audit => 1,
            Self::Warn => 2,
            Self::Enforce => 3,
        }
    }
}

impl Display for AdvisoryAction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Action::from(*self).fmt(formatter)
    }
}

impl Constant for AdvisoryAction {
    fn number(&self) -> i64 {
        Action::from(*self).number()
    }
}

impl Constant for Mode {
    /// The most that an action comes to under this mode.
    fn number(&self) -> i64 {
        self.cap(Action::Enforce).number()
    }
}

impl Constant for Seconds {
    fn number(&self) -> i64 {
        self.get()
    }
}

/// One setting as CEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// An expression of its number, see [`Constant::number`].
    pub number: String,
    /// An expression of its text, as it stands in the policy.
    pub text: String,
    /// Every number that it can have.
    values: BTreeSet<i64>,
}

impl Setting {
    /// A number that is the same for every write.
    pub(super) fn constant(number: i64) -> Self {
        Self {
            number: number.to_string(),
            text: cel::literal(&number.to_string()),
            values: BTreeSet::from([number]),
        }
    }

    /// A number by this expression, which has one of these values.
    pub(super) fn computed(number: String, values: impl IntoIterator<Item = i64>) -> Self {
        Self {
            number,
            text: String::new(),
            values: values.into_iter().collect(),
        }
    }

    /// A cap on an action.
    pub fn at_most(action: Action) -> Self {
        Self::constant(action.number())
    }

    /// Whether the number is this one: `None` where that depends on the write.
    pub(super) fn is(&self, number: i64) -> Option<bool> {
        match (self.values.contains(&number), self.values.len()) {
            (false, _) => Some(false),
            (true, 1) => Some(true),
            (true, _) => None,
        }
    }

    /// The least of some numbers, and of as few of them as can matter.
    pub(super) fn least(terms: impl IntoIterator<Item = Self>) -> Self {
        let mut terms: Vec<Self> = terms.into_iter().collect();
        // The result is never over the least of the terms' greatest values.
        let ceiling = terms
            .iter()
            .filter_map(|term| term.values.last().copied())
            .min()
            .unwrap_or_default();
        terms.retain(|term| term.values.first().is_some_and(|least| *least < ceiling));
        if !terms.iter().any(|term| term.values.last() == Some(&ceiling)) {
            terms.push(Self::constant(ceiling));
        }
        match terms.as_slice() {
            [only] => only.clone(),
            _ => {
                let numbers: Vec<_> = terms.iter().map(|term| term.number.as_str()).collect();
                let values = terms
                    .iter()
                    .flat_map(|term| term.values.iter().copied())
                    .filter(|value| *value <= ceiling);
                Self::computed(
                    format!("[{}].min()", numbers.join(", ")),
                    values.collect::<Vec<_>>(),
                )
            }
        }
    }
}

/// A variable of a policy: computed when it is first asked for, for each write anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, as in `variables.NAME`.
    pub name: String,
    /// Its CEL.
    pub expression: String,
    /// Whether it stays a variable where several expressions ask for it: see [`super::inline`].
    pub(super) is_shared: bool,
}

impl Variable {
    /// One that is worth computing once.
    pub(super) fn shared(name: &str, expression: String) -> Self {
        Self {
            name: name.to_owned(),
            expression,
            is_shared: true,
        }
    }

    /// A word for an expression that costs less than a variable.
    pub(super) fn word(name: &str, expression: String) -> Self {
        Self {
            is_shared: false,
            ..Self::shared(name, expression)
        }
    }
}

/// Turns settings into CEL, and keeps the variables that it takes.
#[derive(Debug, Default)]
pub struct Settings {
    /// Those variables, in the order in which they were made.
    pub(super) variables: Vec<Variable>,
    /// How many overrides there are.
    overrides: usize,
}

/// How many overrides share a variable. The API server's type-checker takes quadratic time for what stands in one
/// expression, and each has a limit of its cost (`k8s.io/apiserver/pkg/apis/cel`: `PerCallLimit`).
const OVERRIDES_PER_VARIABLE: usize = 16;

impl Settings {
    /// Defines which overrides match the lease of the write, by their conditions in the order of the document: their
    /// indexes, the lowest override of the document first.
    pub(super) fn overrides(&mut self, conditions: &[String]) {
        self.overrides = conditions.len();
        let mut names = Vec::new();
        for (number, some) in conditions.chunks(OVERRIDES_PER_VARIABLE).enumerate() {
            let items: Vec<_> = some
                .iter()
                .enumerate()
                .rev()
                .map(|(place, condition)| {
                    format!("{condition} ? {} : -1", number * OVERRIDES_PER_VARIABLE + place)
                })
                .collect();
            let name = format!("matching{number}");
            self.define(
                &name,
                format!("[{}]\n.filter(index, index >= 0)", items.join(",\n")),
            );
            names.push(format!("variables.{name}"));
        }
        names.reverse();
        self.define("matching", names.join(" + "));
    }

    /// One setting: the policy's own value, and those of overrides by their index, from the top of the document to its
    /// bottom. The lowest that matches decides.
    pub fn setting<T: Constant>(
        &mut self,
        name: &str,
        policy: &T,
        overrides: impl IntoIterator<Item = (usize, T)>,
    ) -> Setting {
        let name = &camel_case(name);
        let stated: BTreeMap<usize, T> = overrides.into_iter().collect();
        let mut values: BTreeSet<i64> = stated.values().map(Constant::number).collect();
        values.insert(policy.number());
        let text = cel::literal(&policy.to_string());
        if values.len() == 1 {
            return Setting {
                number: policy.number().to_string(),
                text,
                values,
            };
        }
        // A table of what each override states, not a chain of conditions: that would be as deep as there are overrides.
        let choice = |of: &dyn Fn(&T) -> String, none: &str, is_stated: &str| {
            let table: Vec<_> = (0..self.overrides)
                .map(|index| stated.get(&index).map_or_else(|| none.to_owned(), of))
                .collect();
            format!(
                "(variables.matching.map(index, [{}][index])\n.filter(value, {is_stated}) + [{}])[0]",
                table.join(", "),
                of(policy)
            )
        };
        let number = choice(&|value| value.number().to_string(), "-1", "value >= 0");
        let words = choice(&|value| cel::literal(&value.to_string()), "''", "value != ''");
        let text_name = format!("{name}Text");
        let setting = Setting {
            number: format!("variables.{name}"),
            text: format!("variables.{text_name}"),
            values,
        };
        self.define(name, number);
        self.define(&text_name, words);
        setting
    }

    /// Defines a variable.
    pub(super) fn define(&mut self, name: &str, expression: impl Into<String>) {
        self.variables.push(Variable::shared(name, expression.into()));
    }
}

/// `transition_not_counted_untracked` as `transitionNotCountedUntracked`.
fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    for (index, word) in name.split('_').enumerate() {
        let mut characters = word.chars();
        if index > 0 {
            camel.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        }
        camel.extend(characters);
    }
    camel
}
