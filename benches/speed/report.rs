//! The table that a run prints and writes to a file.

use std::{fs, io, path::Path};

use serde::Serialize;

/// The rows measured so far.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    what: String,
    conditions: String,
    leasehold: String,
    compared: String,
    ratio: String,
    goal: String,
}

impl Report {
    /// Adds a row, and prints it at once.
    pub(crate) fn row(
        &mut self,
        what: &str,
        conditions: &str,
        leasehold: String,
        compared: String,
        ratio: String,
        goal: &str,
    ) {
        println!("{what}: {leasehold}, against {compared}: {ratio} (goal: {goal}; {conditions})");
        let [what, conditions, goal] = [what, conditions, goal].map(str::to_owned);
        self.rows.push(Row {
            what,
            conditions,
            leasehold,
            compared,
            ratio,
            goal,
        });
    }

    /// Writes the table to a file, as JSON.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}
