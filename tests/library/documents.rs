//! What the README says of formats, held against the formats.

use leasehold::{
    audit::AuditRecord,
    policy::{Action, CATALOGUE},
};
use serde_json::Value;

fn readme() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The fields of an object in a schema, with their descriptions, as rows of a Markdown table.
fn rows(schema: &Value, object: &Value, prefix: &str, rows: &mut Vec<String>) {
    for (name, field) in object["properties"].as_object().unwrap() {
        let description = field["description"]
            .as_str()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        rows.push(format!("  | `{prefix}{name}` | {description} |"));
    }
    if let Some(evidence) = object["properties"].get("evidence") {
        assert!(evidence.to_string().contains("EvidenceRecord"));
        self::rows(schema, &schema["$defs"]["EvidenceRecord"], "evidence.", rows);
    }
}

#[test]
fn the_readme_documents_every_field_of_the_audit_log_and_no_other() {
    let schema = schemars::schema_for!(AuditRecord<'_>).to_value();
    let mut expected = Vec::new();
    rows(&schema, &schema, "", &mut expected);
    expected.sort();
    let readme = readme();
    let table = readme
        .split("  | field | meaning |\n  |---|---|\n")
        .nth(1)
        .unwrap();
    let mut documented: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with("  |"))
        .map(str::to_owned)
        .collect();
    documented.sort();
    assert_eq!(documented, expected);
}

#[test]
fn the_readme_lists_every_rule_with_its_default_and_no_other() {
    let readme = readme();
    let table = readme
        .split("| rule | fires on | default |\n|---|---|---|\n")
        .nth(1)
        .unwrap();
    let documented: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let action = cells[3].split(';').next().unwrap();
            (cells[1].trim_matches('`').to_owned(), action.to_owned())
        })
        .collect();
    let expected: Vec<_> = CATALOGUE
        .iter()
        .map(|rule| (rule.name.to_string(), (rule.default_action)().to_string()))
        .collect();
    assert_eq!(documented, expected);
    assert!(
        Action::ALL
            .iter()
            .all(|action| readme.contains(&format!("`{action}`")))
    );
}
