//! What was seen, told at the end: a row per elector and scenario.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{audit::text, world::World},
    programs::Elector,
};

/// One scenario of one elector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    elector: String,
    version: String,
    scenario: String,
    guard: &'static str,
    /// Writes, reviews, denials, two leaders.
    seen: [String; 4],
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Counts what happened in the namespace of a scenario, and keeps the row for the end.
///
/// Writes and denials are those of the API server's audit log; reviews those of Leasehold's, which holds a line for
/// every change of the holder and every violation.
pub(crate) async fn add(
    world: &World,
    elector: (&str, &str),
    scenario: &str,
    namespace: &str,
    guarded: bool,
    two_leaders: Option<Duration>,
) -> anyhow::Result<()> {
    let audit = world.plane().await?.audit()?;
    let reviews: BTreeSet<String> = if guarded {
        let records = world.guard().await?.audit_records_now(namespace)?;
        let uid = |record: &Value| text(record, "/uid").to_owned();
        records.iter().map(uid).collect()
    } else {
        BTreeSet::new()
    };
    let row = Row {
        elector: elector.0.to_owned(),
        version: elector.1.to_owned(),
        scenario: scenario.to_owned(),
        guard: if guarded { "enforce" } else { "none" },
        seen: [
            audit.lease_writes(namespace).count().to_string(),
            reviews.len().to_string(),
            audit.refused_lease_writes(namespace).len().to_string(),
            two_leaders.map_or_else(
                || "no".to_owned(),
                |together| format!("{:.1} s", together.as_secs_f64()),
            ),
        ],
    };
    push(row);
    Ok(())
}

fn push(row: Row) {
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(row);
}

/// The names under which an elector stands in the table.
pub(crate) fn names(elector: Elector) -> (&'static str, &'static str) {
    (elector.name(), elector.version())
}

/// Prints all rows, sorted.
pub(crate) fn print() {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    rows.sort();
    let head = [
        "elector",
        "version",
        "scenario",
        "guard",
        "writes",
        "reviews",
        "denials",
        "two leaders",
    ];
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::ASCII_MARKDOWN)
        .set_header(head);
    for row in rows {
        let known = [row.elector, row.version, row.scenario, row.guard.to_owned()];
        table.add_row(known.into_iter().chain(row.seen));
    }
    println!("{table}");
}
