//! What was done and what was seen, told at the end.

use std::sync::{Mutex, PoisonError};

struct Row {
    scenario: &'static str,
    done: String,
    seen: String,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Keeps a row for the end. Added before anything is asserted, so that a failure is told with its figures.
pub(crate) fn add(scenario: &'static str, done: impl Into<String>, seen: impl Into<String>) {
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(Row {
        scenario,
        done: done.into(),
        seen: seen.into(),
    });
}

/// Prints all rows, in the order of the scenarios.
pub(crate) fn print() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if rows.is_empty() {
        return;
    }
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::ASCII_MARKDOWN)
        .set_header(["scenario", "done", "seen"]);
    for row in rows.iter() {
        table.add_row([row.scenario, &row.done, &row.seen]);
    }
    println!("{table}");
}
