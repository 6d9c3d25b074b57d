//! The picture of an act: a row for each elector, a cell for each quarter of a second.

use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::{ledger::Ledger, script::Act};

const CELL: Duration = Duration::from_millis(250);
const CELLS_IN_A_TICK: usize = 8;

/// Columns before the cells: two blanks, an identity of ten, a label of thirteen, and blanks between.
const MARGIN: usize = 27;

/// One leader: as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Two leaders: as it should not be.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// A denial.
pub const DENIAL: Style = AnsiColor::Yellow.on_default().bold();
/// What is not the point.
pub const FAINT: Style = Style::new().dimmed();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Absent,
    Candidate,
    Leader,
    TwoLeaders,
    Denied,
    Killed,
}

impl Cell {
    fn glyph(self) -> (char, Style) {
        match self {
            Self::Absent => (' ', Style::new()),
            Self::Candidate => ('·', FAINT),
            Self::Leader => ('█', GOOD),
            Self::TwoLeaders => ('▒', BAD),
            Self::Denied => ('×', DENIAL),
            Self::Killed => ('†', Style::new().bold()),
        }
    }
}

/// The picture of `act` at `now`, in lines of at most 79 columns.
pub fn draw(act: &Act, ledger: &Ledger, now: Duration) -> Vec<String> {
    let mut lines = vec![String::new(), axis(act)];
    let mut lease = None;
    for (index, role) in act.cast.iter().enumerate() {
        if lease.is_some_and(|lease| lease != role.lease) {
            lines.push(String::new());
        }
        lease = Some(role.lease);
        let cells = cells(ledger, index, act.length.min(now));
        lines.push(format!(
            "  {:<10} {:<13} {}",
            role.identity,
            role.label(),
            paint(&cells)
        ));
    }
    lines.push(String::new());
    lines.push(legend());
    lines
}

fn axis(act: &Act) -> String {
    let ticks = act.length.as_millis().div_ceil(CELL.as_millis()) as usize / CELLS_IN_A_TICK;
    let mut line = " ".repeat(MARGIN);
    for tick in 0..=ticks {
        line.push_str(&format!("{:<CELLS_IN_A_TICK$}", format!("{} s", tick * 2)));
    }
    format!("{FAINT}{}{FAINT:#}", line.trim_end())
}

fn legend() -> String {
    let entries = [
        (Cell::Leader, "leads"),
        (Cell::TwoLeaders, "leads beside another"),
        (Cell::Candidate, "waits"),
        (Cell::Denied, "denied"),
        (Cell::Killed, "killed"),
    ];
    let entries: Vec<String> = entries
        .into_iter()
        .map(|(cell, meaning)| format!("{} {meaning}", paint(&[cell])))
        .collect();
    format!("  {}", entries.join("   "))
}

/// An elector's cells up to the last one in which it was there.
fn cells(ledger: &Ledger, elector: usize, now: Duration) -> Vec<Cell> {
    let count = now.as_millis().div_ceil(CELL.as_millis()) as u32;
    let mut cells: Vec<Cell> = (0..count)
        .map(|number| cell(ledger, elector, number, now))
        .collect();
    let end = cells
        .iter()
        .rposition(|cell| *cell != Cell::Absent)
        .map_or(0, |last| last + 1);
    cells.truncate(end);
    cells
}

fn cell(ledger: &Ledger, elector: usize, number: u32, now: Duration) -> Cell {
    let Some(row) = ledger.rows.get(elector) else {
        return Cell::Absent;
    };
    let start = CELL * number;
    let middle = (start + CELL / 2).min(now);
    let within = |instant: &Duration| start <= *instant && *instant < start + CELL;
    if row.killed.as_ref().is_some_and(within) {
        Cell::Killed
    } else if row.denied.iter().any(within) {
        Cell::Denied
    } else if row.leading.iter().any(|span| span.covers(middle)) {
        if ledger.leaders(elector, middle) > 1 {
            Cell::TwoLeaders
        } else {
            Cell::Leader
        }
    } else if row.present.iter().any(|span| span.covers(middle)) {
        Cell::Candidate
    } else {
        Cell::Absent
    }
}

/// One escape for each run of equal cells.
fn paint(cells: &[Cell]) -> String {
    let mut text = String::new();
    for run in cells.chunk_by(|one, other| one == other) {
        let (glyph, style) = run.first().copied().unwrap_or(Cell::Absent).glyph();
        text.push_str(&format!(
            "{style}{}{style:#}",
            glyph.to_string().repeat(run.len())
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::demo::{
        event::{Acquisition, Event, EventKind, StopReason},
        screen::WIDTH,
        script,
    };

    fn plain(lines: &[String]) -> Vec<String> {
        lines
            .iter()
            .map(|line| anstream::adapter::strip_str(line).to_string())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn bars_grow_turn_to_double_leadership_and_end() {
        let act = script::unguarded();
        let mut ledger = Ledger::new(vec![0, 0, 1, 1, 2, 2, 3, 3]);
        let start = Instant::now();
        let mut at = |milliseconds: u64, elector: usize, kind: EventKind| {
            ledger.record(&Event {
                at: start + Duration::from_millis(milliseconds),
                elector,
                kind,
            });
        };
        at(0, 0, EventKind::Joined);
        at(0, 0, EventKind::Leads(Acquisition::Created));
        at(500, 1, EventKind::Joined);
        at(1000, 1, EventKind::Leads(Acquisition::Free));
        at(2000, 0, EventKind::Stops(StopReason::Lost));
        at(2500, 1, EventKind::Killed);
        let lines = plain(&draw(&act, &ledger, Duration::from_secs(3)));
        assert_eq!(lines[1], "                           0 s     2 s     4 s     6 s");
        assert_eq!(lines[2], "  payments-0 correct       ████▒▒▒▒····");
        assert_eq!(lines[3], "  payments-1 clock +1 hour   ··▒▒▒▒██†");
    }

    #[tokio::test(start_paused = true)]
    async fn every_picture_fits_the_screen() {
        for act in [script::unguarded(), script::guarded()] {
            let mut ledger = Ledger::new((0..act.cast.len()).collect());
            for elector in 0..act.cast.len() {
                ledger.record(&Event {
                    at: Instant::now(),
                    elector,
                    kind: EventKind::Joined,
                });
            }
            let lines = plain(&draw(&act, &ledger, act.length));
            assert!(
                lines.iter().all(|line| line.chars().count() <= WIDTH),
                "{lines:#?}"
            );
            assert!(
                lines.len() < 20,
                "room for lines above it on 24 rows: {}",
                lines.len()
            );
            for role in &act.cast {
                assert!(
                    role.identity.len() <= 10 && role.label().len() <= 13,
                    "{}",
                    role.identity
                );
            }
        }
    }
}
