//! What the two tables of the documentation say of a trace.

use std::collections::BTreeMap;

use crate::{
    trace_format::Step,
    trace_play::{Decision, expected},
};

/// One rule in the table: what came of it, its name, and whether only pure renewals showed it.
pub(crate) type Said = BTreeMap<(Decision, &'static str), bool>;

pub(crate) fn said(steps: &[Step]) -> Said {
    let mut said = Said::new();
    for step in steps {
        for (rule, decision) in expected(step).told {
            let only_renewals = said.entry((decision, rule)).or_insert(true);
            *only_renewals &= step.change == "renew";
        }
    }
    said
}

/// How much an operator must care: what is denied comes first, then what is warned of, and so on.
pub(crate) fn concern(said: &Said) -> Decision {
    said.keys()
        .next()
        .map_or(Decision::Noted, |(decision, _)| *decision)
}

/// What Leasehold says of a trace, in words.
pub(crate) fn says(said: &Said) -> String {
    let says: Vec<_> = Decision::ALL
        .iter()
        .filter_map(|(decision, _, word)| {
            let rules: Vec<_> = said
                .iter()
                .filter(|((of, _), _)| of == decision)
                .map(|((_, rule), only_renewals)| {
                    format!("`{rule}`{}", if *only_renewals { " (on renewals)" } else { "" })
                })
                .collect();
            (!rules.is_empty()).then(|| format!("{word}: {}", rules.join(", ")))
        })
        .collect();
    if says.is_empty() {
        "nothing".to_owned()
    } else {
        says.join("; ")
    }
}

/// The profiles by which its writes are known.
pub(crate) fn profiles(steps: &[Step]) -> String {
    let mut profiles: Vec<_> = steps
        .iter()
        .filter_map(|step| step.profile.as_ref().map(|profile| format!("`{profile}`")))
        .collect();
    profiles.sort();
    profiles.dedup();
    profiles.join(", ")
}

/// What becomes of it in mode enforce.
pub(crate) fn in_enforce(text: Option<&str>, remedy: Option<&str>) -> String {
    let text = text.unwrap_or("undisturbed");
    match remedy {
        Some(remedy) => format!("**Act first:** {text}; or `{remedy}`"),
        None => text.to_owned(),
    }
}

/// A row of a table.
pub(crate) fn row<const N: usize>(cells: [String; N]) -> String {
    let cells = cells.map(|cell| {
        cell.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|")
    });
    format!("| {} |\n", cells.join(" | "))
}
