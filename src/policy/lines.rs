//! Where each field of a policy document stands.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

/// Line and column, both from 1.
type Position = (u64, u64);

/// Line and column of every value in a document, by its path (`overrides/0/mode`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    values: BTreeMap<String, Position>,
    /// What stands where: of several values that begin in one place, the innermost.
    paths: BTreeMap<Position, String>,
    /// In what each name of a field stands.
    keys: BTreeMap<Position, String>,
}

impl Lines {
    /// Reads a document for the places alone.
    ///
    /// # Errors
    /// The parser's own for a document that is no YAML.
    pub(super) fn of(document: &str) -> Result<Self, serde_saphyr::Error> {
        let root: Spanned<Node> = serde_saphyr::from_str(document)?;
        let mut lines = Self::default();
        lines.note(String::new(), &root);
        Ok(lines)
    }

    /// The path of the value that begins here.
    pub(super) fn value_at(&self, position: Position) -> Option<&str> {
        self.paths.get(&position).map(String::as_str)
    }

    /// The path of what holds the field whose name stands here.
    pub(super) fn holder_of_key_at(&self, position: Position) -> Option<&str> {
        self.keys.get(&position).map(String::as_str)
    }

    /// Line and column, from 1, of the value at this path.
    pub(super) fn position(&self, path: &str) -> Option<Position> {
        self.values.get(path).copied()
    }

    fn note(&mut self, path: String, node: &Spanned<Node>) {
        let child = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            }
        };
        match &node.value {
            Node::Scalar => {}
            Node::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(child(&index.to_string()), item);
                }
            }
            Node::Mapping(fields) => {
                for (name, value) in fields {
                    self.keys.insert(position(name), path.clone());
                    self.note(child(&name.value), value);
                }
            }
        }
        self.paths.entry(position(node)).or_insert_with(|| path.clone());
        self.values.insert(path, position(node));
    }
}

fn position<T>(node: &Spanned<T>) -> Position {
    (node.referenced.line(), node.referenced.column())
}

/// The shape of a YAML node.
enum Node {
    Scalar,
    Sequence(Vec<Spanned<Self>>),
    Mapping(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Node;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("any YAML")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(item);
                }
                Ok(Node::Sequence(items))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = mapping.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Mapping(fields))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_place() {
        let lines = Lines::of(
            "# comment\nmode: audit\nrules:\n  transition-overflow: {action: warn}\noverrides:\n  - match:\n      \
             names: [a, b]\n    mode: off\n  - match: {names: [c]}\n    mode:\n      enforce\n",
        )
        .unwrap();
        for (path, position) in [
            ("mode", Some((2, 7))),
            ("rules/transition-overflow/action", Some((4, 33))),
            ("overrides/0", Some((6, 5))),
            ("overrides/0/match/names/1", Some((7, 18))),
            ("overrides/0/mode", Some((8, 11))),
            ("overrides/1/mode", Some((11, 7))),
            ("overrides/2", None),
        ] {
            assert_eq!(lines.position(path), position, "{path}");
        }
    }

    #[test]
    fn an_empty_document_has_no_places() {
        assert_eq!(Lines::of("").unwrap().position("mode"), None);
    }
}
