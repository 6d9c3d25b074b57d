//! Puts variables in the place of their names.
//!
//! A variable is dear: the API server makes an entry for each, in every evaluation of a policy, also of one that ends at
//! its matchCondition, and an own evaluation with its own count of the cost when one is asked for
//! (`k8s.io/apiserver/pkg/admission/plugin/cel/composition.go`). A short expression costs a fraction of that each time.
//! So what is short, or asked for in one place only, stands where it is used.

use std::collections::{BTreeMap, BTreeSet};

use super::setting::Variable;

/// The variables that some expressions need, with as many as possible of the others in their place.
///
/// A variable refers to none that stands after it. What the expressions themselves refer to stays.
pub(super) fn inline<'a>(
    variables: Vec<Variable>,
    expressions: impl IntoIterator<Item = &'a str>,
) -> Vec<Variable> {
    let roots: BTreeSet<String> = expressions.into_iter().flat_map(references).collect();
    let mut uses: BTreeMap<String, usize> = roots.iter().map(|root| (root.clone(), 1)).collect();
    let mut needed = Vec::new();
    for variable in variables.into_iter().rev() {
        if uses.contains_key(&variable.name) {
            for name in references(&variable.expression) {
                *uses.entry(name).or_default() += 1;
            }
            needed.push(variable);
        }
    }
    let mut kept: Vec<Variable> = Vec::new();
    let mut inlined: BTreeMap<String, String> = BTreeMap::new();
    for mut variable in needed.into_iter().rev() {
        variable.expression = substitute(&variable.expression, &inlined);
        let is_used_once = uses.get(&variable.name) == Some(&1);
        if roots.contains(&variable.name) || variable.is_shared && !is_used_once {
            kept.push(variable);
        } else {
            inlined.insert(variable.name, variable.expression);
        }
    }
    kept
}

/// The text with each `variables.NAME` of the map in its place, in parentheses where it is more than one operand.
fn substitute(expression: &str, inlined: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for piece in pieces(expression) {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Variable(name) => match inlined.get(name) {
                Some(of) if is_one_operand(of) => text.push_str(of),
                Some(of) => {
                    text.push('(');
                    text.push_str(of);
                    text.push(')');
                }
                None => {
                    text.push_str(PREFIX);
                    text.push_str(name);
                }
            },
        }
    }
    text
}

/// Whether an expression is a name, its fields and calls: nothing in it binds less than what may stand beside it.
fn is_one_operand(expression: &str) -> bool {
    let mut depth = 0;
    expression.starts_with(|first: char| first.is_ascii_alphabetic())
        && expression.chars().all(|character| {
            match character {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                _ => {}
            }
            depth > 0 || character.is_ascii_alphanumeric() || ".?_)]".contains(character)
        })
        // A bracket in a string is none.
        && !expression.contains(['\'', '"'])
}

const PREFIX: &str = "variables.";

/// Part of an expression.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The NAME of a `variables.NAME`.
    Variable(&'a str),
}

/// The expression in its parts.
fn pieces(expression: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = expression;
    while let Some(at) = first_variable(rest) {
        let (text, variable) = rest.split_at(at);
        let (_, named) = variable.split_at(PREFIX.len());
        let length = named
            .find(|character: char| !character.is_ascii_alphanumeric())
            .unwrap_or(named.len());
        let (name, after) = named.split_at(length);
        pieces.extend([Piece::Text(text), Piece::Variable(name)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// Where the first `variables.` stands that is in no string: a policy may name a lease `variables.update`.
fn first_variable(expression: &str) -> Option<usize> {
    let mut quote = None;
    let mut characters = expression.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            // What it escapes ends no string.
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, _) if expression.split_at(at).1.starts_with(PREFIX) => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// The names of the variables that an expression asks for, as often as it does.
fn references(expression: &str) -> impl Iterator<Item = String> {
    pieces(expression).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name.to_owned()),
        Piece::Text(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inlined(variables: &[Variable]) -> Vec<(String, String)> {
        let kept = inline(variables.to_vec(), ["variables.root == 1"]);
        kept.into_iter()
            .map(|variable| (variable.name, variable.expression))
            .collect()
    }

    fn shared(name: &str, expression: &str) -> Variable {
        Variable::shared(name, expression.to_owned())
    }

    fn word(name: &str, expression: &str) -> Variable {
        Variable::word(name, expression.to_owned())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, expression): &(&str, &str)| ((*name).to_owned(), (*expression).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn what_is_asked_for_once_stands_in_its_place_and_what_nobody_asks_for_goes() {
        let variables = [
            shared("unused", "1"),
            shared("once", "object.a + 1"),
            shared("twice", "object.b.exists(x, x > variables.once)"),
            shared("root", "variables.twice || !variables.twice"),
        ];
        assert_eq!(
            inlined(&variables),
            pairs(&[
                ("twice", "object.b.exists(x, x > (object.a + 1))"),
                ("root", "variables.twice || !variables.twice"),
            ])
        );
    }

    #[test]
    fn a_word_stands_in_every_place() {
        let variables = [
            word("holder", "object.?spec.?holderIdentity.orValue(0)"),
            word("held", "variables.holder != 0"),
            shared("root", "variables.held && variables.held && variables.holder > 1"),
        ];
        let holder = "object.?spec.?holderIdentity.orValue(0)";
        assert_eq!(
            inlined(&variables),
            pairs(&[(
                "root",
                &format!("({holder} != 0) && ({holder} != 0) && {holder} > 1")
            )])
        );
    }

    #[test]
    fn a_root_stays_and_so_does_a_string() {
        let variables = [
            word("update", "true"),
            shared(
                "root",
                r#"variables.update && 'it\'s variables.update' != "\"variables.update""#,
            ),
        ];
        assert_eq!(
            inlined(&variables),
            pairs(&[(
                "root",
                r#"true && 'it\'s variables.update' != "\"variables.update""#
            )])
        );
    }

    #[test]
    fn a_name_is_no_beginning_of_another() {
        let variables = [
            word("a", "1"),
            shared("ab", "2"),
            shared("root", "variables.ab + variables.a"),
        ];
        assert_eq!(inlined(&variables), pairs(&[("root", "(2) + (1)")]));
    }
}
