//! `leasehold explain`: what a rule means and what to do about it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::output::{self, Format};
use crate::policy::{CATALOGUE, CatalogueEntry, Policy, RuleName};

/// Flags of `leasehold explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The rule, as denials name it [default: list all rules].
    rule: Option<String>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    rule: RuleName,
    default_action: &'static str,
    summary: String,
    documentation: String,
    fires_for: String,
    settings: serde_json::Value,
}

impl Explained {
    fn of(entry: &CatalogueEntry) -> Self {
        let rules = serde_json::to_value(&Policy::default().document().rules).unwrap_or_default();
        Self {
            rule: entry.name,
            default_action: (entry.default_action)().as_str(),
            summary: entry.summary(),
            documentation: plain(entry.documentation),
            fires_for: entry.purposes.in_words(),
            settings: rules.get(entry.name.as_str()).cloned().unwrap_or_default(),
        }
    }
}

/// A doc comment's text, without the blank between its marks and its words.
fn plain(documentation: &str) -> String {
    let lines = documentation
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs `leasehold explain`.
///
/// # Errors
/// A rule that does not exist, or an output that cannot be written.
pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let ExplainArgs { rule, output } = args;
    let mut out = output::standard_output();
    let Some(rule) = rule else {
        let all: Vec<_> = CATALOGUE.iter().map(Explained::of).collect();
        match output {
            Format::Json => output::json_document(&mut out, &all)?,
            Format::Table => {
                let rows = all.into_iter().map(|rule| {
                    [
                        rule.rule.to_string(),
                        rule.default_action.to_owned(),
                        rule.summary,
                    ]
                });
                writeln!(out, "{}", output::table(["RULE", "DEFAULT", "FIRES ON"], rows))?;
                writeln!(out, "\nMore on one: leasehold explain RULE")?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(entry) = CATALOGUE.iter().find(|entry| entry.name.as_str() == rule) else {
        let known: Vec<_> = CATALOGUE.iter().map(|entry| entry.name.as_str()).collect();
        anyhow::bail!("there is no rule {rule:?}; the rules are {}", known.join(", "));
    };
    let explained = Explained::of(entry);
    match output {
        Format::Json => output::json_document(&mut out, &explained)?,
        Format::Table => print(&mut out, &explained)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, rule: &Explained) -> io::Result<()> {
    writeln!(out, "{} (default: {})\n", rule.rule, rule.default_action)?;
    writeln!(out, "{}", rule.documentation)?;
    let fields = rule.settings.as_object();
    let settings: Vec<_> = fields
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}: {}", flow(value)))
        .collect();
    writeln!(
        out,
        "\nFires for leases that are {}.\n\nIn the policy, with its defaults:\n\n  rules:\n    {}: {{{}}}",
        rule.fires_for,
        rule.rule,
        settings.join(", ")
    )
}

/// A value in YAML's flow style.
fn flow(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", flow(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
