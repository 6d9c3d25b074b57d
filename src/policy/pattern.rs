//! Patterns of names: what an override matches leases and their writers by.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a pattern is matched against: its alphabet, by which a pattern that can match nothing is told.
pub trait Subject {
    /// What it is, with an article.
    const WHAT: &'static str;
    /// Its longest length, in characters.
    const LONGEST: usize;
    /// What it may consist of, for people.
    const ALPHABET: &'static str;
    /// Whether this character may stand in it.
    fn allows(character: char) -> bool;
}

/// The name of a namespace: an RFC 1123 label (`k8s.io/apimachinery/pkg/util/validation`: `IsDNS1123Label`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace;

/// The name of a lease: an RFC 1123 subdomain (`IsDNS1123Subdomain`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name;

/// The name of a service account: an RFC 1123 subdomain (`ValidateServiceAccountName` in
/// `k8s.io/apimachinery/pkg/api/validation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountName;

/// The value of a label (`IsValidLabelValue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelValue;

impl Subject for Namespace {
    const WHAT: &'static str = "a namespace";
    const LONGEST: usize = 63;
    const ALPHABET: &'static str = "a to z, 0 to 9 and -";
    fn allows(character: char) -> bool {
        matches!(character, 'a'..='z' | '0'..='9' | '-')
    }
}

impl Subject for Name {
    const WHAT: &'static str = "a lease's name";
    const LONGEST: usize = 253;
    const ALPHABET: &'static str = "a to z, 0 to 9, - and .";
    fn allows(character: char) -> bool {
        matches!(character, 'a'..='z' | '0'..='9' | '-' | '.')
    }
}

impl Subject for AccountName {
    const WHAT: &'static str = "a service account's name";
    const LONGEST: usize = Name::LONGEST;
    const ALPHABET: &'static str = Name::ALPHABET;
    fn allows(character: char) -> bool {
        Name::allows(character)
    }
}

impl Subject for LabelValue {
    const WHAT: &'static str = "a label's value";
    const LONGEST: usize = 63;
    const ALPHABET: &'static str = "A to Z, a to z, 0 to 9, -, _ and .";
    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
    }
}

/// A pattern: `*` stands for any characters, none included; every other character for itself. The whole of the
/// subject must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern<S> {
    text: Box<str>,
    subject: PhantomData<S>,
}

/// Why a pattern was refused: it could match nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern:?} matches nothing: {problem}")]
pub struct PatternError {
    pattern: String,
    problem: String,
}

impl<S: Subject> Pattern<S> {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] for a pattern that can match nothing.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let refuse = |problem| {
            Err(PatternError {
                // Enough to find it by.
                pattern: text.chars().take(S::LONGEST).collect(),
                problem,
            })
        };
        let what = S::WHAT;
        // Only a label's value may be empty, and then "" says so.
        if text.is_empty() && S::WHAT != LabelValue::WHAT {
            return refuse(format!("{what} is never empty; write * for any"));
        }
        if let Some(stranger) = text.chars().find(|&it| it != '*' && !S::allows(it)) {
            return refuse(format!(
                "{what} holds no {stranger:?}, only {}; the one wildcard is *",
                S::ALPHABET
            ));
        }
        let edges = [text.chars().next(), text.chars().next_back()];
        if let Some(edge) = edges
            .into_iter()
            .flatten()
            .find(|&it| it != '*' && !it.is_ascii_alphanumeric())
        {
            return refuse(format!("{what} neither begins nor ends with {edge:?}"));
        }
        let stated = text.chars().filter(|&it| it != '*').count();
        if stated > S::LONGEST {
            let longest = S::LONGEST;
            return refuse(format!(
                "it states {stated} characters, and {what} has at most {longest}"
            ));
        }
        Ok(Self {
            text: text.into(),
            subject: PhantomData,
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `subject` matches.
    pub fn matches(&self, subject: &str) -> bool {
        matches(self.text.as_bytes(), subject.as_bytes())
    }
}

/// Goes along both, and back to the last `*` where they part: no more steps than the product of the lengths, and
/// no recursion.
fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last `*` stands, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = subject.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(expected) if expected == byte => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((position, reached)) = star else {
                    return false;
                };
                star = Some((position, reached + 1));
                at = position + 1;
                from = reached + 1;
            }
        }
    }
    pattern
        .get(at..)
        .is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl<S> fmt::Display for Pattern<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl<S> Serialize for Pattern<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, S: Subject> Deserialize<'de> for Pattern<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

impl<S: Subject> JsonSchema for Pattern<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": format!("A pattern of {}: * stands for any characters.", S::WHAT),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, subject, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("**", "", true),
            ("shop", "shop", true),
            ("shop", "shops", false),
            ("shop", "sho", false),
            ("team-*", "team-a", true),
            ("team-*", "team-", true),
            ("team-*", "steam-a", false),
            ("*-legacy", "a-legacy", true),
            ("*-legacy", "a-legacy-b", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab", "aab", true),
            ("*aab*", "aaab", true),
        ] {
            assert_eq!(
                Pattern::<LabelValue>::new(pattern).unwrap().matches(subject),
                expected,
                "{pattern} {subject}"
            );
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_refused() {
        fn problem<S: Subject>(pattern: &str) -> String {
            Pattern::<S>::new(pattern)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        }
        for (message, expected) in [
            (
                problem::<Namespace>("Team-*"),
                "a namespace holds no 'T', only a to z, 0 to 9 and -",
            ),
            (problem::<Namespace>("team/a"), "a namespace holds no '/'"),
            (problem::<Namespace>("team?"), "the one wildcard is *"),
            (problem::<Namespace>("team.a"), "a namespace holds no '.'"),
            (
                problem::<Namespace>(""),
                "a namespace is never empty; write * for any",
            ),
            (
                problem::<Namespace>("-a*"),
                "a namespace neither begins nor ends with '-'",
            ),
            (
                problem::<Namespace>("*a-"),
                "a namespace neither begins nor ends with '-'",
            ),
            (
                problem::<Namespace>(&"a".repeat(64)),
                "it states 64 characters, and a namespace has at most 63",
            ),
            (problem::<Name>("shop/payments"), "a lease's name holds no '/'"),
            (problem::<Name>("pay_ments"), "a lease's name holds no '_'"),
            (problem::<LabelValue>("a b"), "a label's value holds no ' '"),
            (
                problem::<LabelValue>("_a"),
                "a label's value neither begins nor ends with '_'",
            ),
        ] {
            assert!(message.contains(expected), "{message:?} should say {expected:?}");
        }
        assert_eq!(problem::<Namespace>(&format!("*{}*", "a".repeat(63))), "");
        assert_eq!(problem::<Name>("a.b-c*"), "");
        assert_eq!(problem::<LabelValue>(""), "", "a label's value may be empty");
    }

    /// What a pattern means, by the definition: each `*` tried at every length.
    fn by_definition(pattern: &[u8], subject: &[u8]) -> bool {
        match pattern.split_first() {
            None => subject.is_empty(),
            Some((b'*', rest)) => (0..=subject.len()).any(|length| by_definition(rest, &subject[length..])),
            Some((letter, rest)) => subject
                .split_first()
                .is_some_and(|(first, others)| first == letter && by_definition(rest, others)),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_their_definition_says(pattern in "[ab*]{0,8}", subject in "[ab]{0,12}") {
            prop_assert_eq!(
                matches(pattern.as_bytes(), subject.as_bytes()),
                by_definition(pattern.as_bytes(), subject.as_bytes())
            );
        }

        /// A subject made from a pattern matches it.
        #[test]
        fn a_pattern_matches_what_it_was_filled_into(parts in proptest::collection::vec("[a-c]{0,4}", 1..5), fill in "[a-c]{0,5}") {
            prop_assert!(matches(parts.join("*").as_bytes(), parts.join(&fill).as_bytes()));
        }
    }
}
