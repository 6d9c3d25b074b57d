//! The policy's format, described for people and for editors.

use std::fmt::Write;

use serde_json::Value;

use super::LeasePolicy;

/// The JSON schema of a policy document.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(LeasePolicy).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert(
            "$id".into(),
            "https://leasehold.dev/schemas/v1alpha1/lease-policy.json".into(),
        );
    }
    schema
}

/// The default document in YAML, in the order of the types, each field under a comment that says what it means.
pub fn documented_default() -> String {
    let schema = json_schema();
    let plain = serde_saphyr::to_string(&LeasePolicy::default()).unwrap_or_default();
    let mut text = String::new();
    // The schemas of the objects that a line is in, the document's first, each with the indentation of its fields.
    let mut objects: Vec<(usize, &Value)> = Vec::new();
    let mut next = &schema;
    for line in plain.lines() {
        let content = line.trim_start();
        let indentation = line.len() - content.len();
        while objects
            .last()
            .is_some_and(|(of_fields, _)| *of_fields > indentation)
        {
            objects.pop();
        }
        if objects
            .last()
            .is_none_or(|(of_fields, _)| *of_fields < indentation)
        {
            objects.push((indentation, next));
        }
        let field = content.split_once(':').and_then(|(name, _)| {
            let (_, object) = objects.last()?;
            object.get("properties")?.get(name)
        });
        if let Some(field) = field {
            next = resolve(&schema, field);
            describe(&mut text, indentation, field, next);
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Writes a field's description as a comment. A rule's own documentation is long and has `leasehold explain`: its first
/// paragraph will do here.
fn describe(text: &mut String, indentation: usize, field: &Value, target: &Value) {
    let description = field.get("description").or_else(|| target.get("description"));
    let description = description.and_then(Value::as_str).unwrap_or_default();
    let paragraph = description.split("\n\n").next().unwrap_or_default();
    for line in wrap(paragraph, 100 - indentation) {
        let _ = writeln!(text, "{:indentation$}# {line}", "");
    }
}

/// The schema that a field's reference points to, or the field's own.
fn resolve<'a>(root: &'a Value, field: &'a Value) -> &'a Value {
    let reference = field.get("$ref").and_then(Value::as_str);
    reference
        .and_then(|path| root.pointer(path.trim_start_matches('#')))
        .unwrap_or(field)
}

/// Breaks a paragraph into lines of at most `width` characters, but for words that are longer.
fn wrap(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{CATALOGUE, Policy};

    #[test]
    fn the_printed_default_is_the_default() {
        assert_eq!(Policy::parse(&documented_default()).unwrap(), Policy::default());
    }

    #[test]
    fn the_printed_default_states_and_explains_every_field() {
        let printed = documented_default();
        fn assert_stated(printed: &str, value: &Value) {
            for (name, value) in value.as_object().into_iter().flatten() {
                let line = printed
                    .lines()
                    .position(|line| line.trim_start().starts_with(&format!("{name}:")));
                let before = line.and_then(|line| printed.lines().nth(line.checked_sub(1)?));
                assert!(
                    before.is_some_and(|line| line.trim_start().starts_with("# ")),
                    "{name}:\n{printed}"
                );
                assert_stated(printed, value);
            }
        }
        assert_stated(&printed, &serde_json::to_value(LeasePolicy::default()).unwrap());
        for rule in CATALOGUE {
            assert!(printed.contains(&format!("  {}:\n", rule.name)), "{}", rule.name);
        }
    }

    #[test]
    fn the_schema_refuses_what_the_parser_refuses() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], false);
        let rules = resolve(&schema, &schema["properties"]["rules"]);
        assert_eq!(rules["additionalProperties"], false);
        let names: Vec<_> = rules["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut expected: Vec<_> = CATALOGUE.iter().map(|rule| rule.name.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!(schema["properties"]["mode"]["default"], "enforce");
    }
}
