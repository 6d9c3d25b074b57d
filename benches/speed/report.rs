//! The table that a run prints and writes to files.

use std::{fmt::Write, fs, path::Path, thread};

use anyhow::Context;
use serde::Serialize;

/// The rows measured so far, and what they were measured on.
#[derive(Serialize)]
pub(crate) struct Report {
    conditions: Vec<String>,
    rows: Vec<Row>,
}

/// One measurement.
#[derive(Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) what: String,
    /// What it took, with its unit.
    pub(crate) measured: String,
    /// What the other way took; empty where there is none.
    pub(crate) against: String,
    /// The one as a multiple of the other; empty where there is no other.
    pub(crate) ratio: String,
    /// What it should be; empty where nothing was asked for.
    pub(crate) goal: &'static str,
    /// What belongs to the numbers.
    pub(crate) conditions: String,
}

impl Report {
    /// A report of what this machine does now.
    pub(crate) fn begin() -> Self {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let mut conditions = vec![format!("{cores} cores")];
        // Other work on the machine slows both sides of a pair, but not always alike.
        if let Ok(text) = fs::read_to_string("/proc/loadavg")
            && let Some(load) = text.split(' ').next()
        {
            conditions.push(format!("load average {load} at the start"));
        }
        conditions.push("each pair measured in turn within one run, medians".to_owned());
        Self {
            conditions,
            rows: Vec::new(),
        }
    }

    /// Adds a condition that holds for all rows.
    pub(crate) fn condition(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    /// Adds a row, and prints it at once.
    pub(crate) fn row(&mut self, row: Row) {
        let Row {
            what,
            measured,
            against,
            ratio,
            goal,
            conditions,
        } = &row;
        println!("{what}: {measured}");
        for (name, text) in [
            ("against", against.as_str()),
            ("ratio", ratio),
            ("goal", goal),
            ("conditions", conditions),
        ] {
            if !text.is_empty() {
                println!("    {name}: {text}");
            }
        }
        self.rows.push(row);
    }

    /// Writes the table as JSON and as Markdown, in files of this name.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let write = |name: &str, content: String| {
            let path = folder.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            println!("written to {}", path.display());
            anyhow::Ok(())
        };
        write(
            &format!("{name}.json"),
            serde_json::to_string_pretty(self)? + "\n",
        )?;
        write(&format!("{name}.md"), self.markdown()?)
    }

    fn markdown(&self) -> anyhow::Result<String> {
        let mut text = format!("Conditions: {}.\n\n", self.conditions.join("; "));
        text.push_str(
            "| what | measured | against | ratio | goal | conditions |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let Row {
                what,
                measured,
                against,
                ratio,
                goal,
                conditions,
            } = row;
            writeln!(
                text,
                "| {what} | {measured} | {against} | {ratio} | {goal} | {conditions} |"
            )?;
        }
        Ok(text)
    }
}
