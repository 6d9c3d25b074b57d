//! Puts into words what happens on stage, as it happens.

use std::{collections::BTreeSet, time::Duration};

use anstyle::Style;

use super::{
    event::{Acquisition, Event, EventKind, StopReason},
    ledger::Ledger,
    screen::WIDTH,
    script::{Act, GUARDED, Role},
    store::ApiError,
    timeline::{BAD, DENIAL, FAINT, GOOD},
};

/// Columns that the time takes before each line.
const INDENT: usize = 9;

/// Tells one act.
#[derive(Debug, Default)]
pub struct Narrator {
    denied: BTreeSet<usize>,
}

impl Narrator {
    /// What to say about `event`, which `ledger` already knows; nothing about what only repeats itself.
    pub fn tell(&mut self, act: &Act, ledger: &Ledger, event: &Event) -> Vec<String> {
        let Some(role) = act.cast.get(event.elector) else {
            return Vec::new();
        };
        let at = ledger.since_start(event.at);
        let Role { identity, lease, .. } = role;
        let guarded = act.namespace == GUARDED;
        match &event.kind {
            EventKind::Joined | EventKind::Leads(Acquisition::Created) => Vec::new(),
            EventKind::Leads(Acquisition::Free) => {
                let allowed = if guarded { ": allowed" } else { "" };
                timed(
                    at,
                    GOOD,
                    &format!("{identity} acquires {lease}, which is free{allowed}."),
                )
            }
            EventKind::Leads(takeover @ Acquisition::Takeover { from, .. }) => {
                let mut lines = told_takeover(role, takeover, guarded, at);
                if ledger.leaders(event.elector, at) > 1 {
                    let text = format!("Now {lease} has two leaders: {from} does not know, and works on.");
                    lines.extend(styled(BAD, &indented(&text)));
                }
                lines
            }
            EventKind::Denied(error) => {
                if !self.denied.insert(event.elector) {
                    return Vec::new();
                }
                let text = format!("{identity} tries to take {lease}, and is denied. It is told:");
                let mut lines = timed(at, DENIAL, &text);
                lines.extend(styled(DENIAL, &quoted(error)));
                lines
            }
            EventKind::Stops(StopReason::Lost) => {
                let both = ledger.double_leadership(event.elector, at).as_secs_f64();
                let text = format!(
                    "{identity} stops, as its renewals failed for too long. For {both:.1} s {lease} had two leaders."
                );
                timed(at, Style::new(), &text)
            }
            EventKind::Stops(StopReason::Released) => timed(
                at,
                Style::new(),
                &format!("{identity} is asked to stop, and releases {lease}."),
            ),
            EventKind::Killed => timed(
                at,
                Style::new(),
                &format!("{identity} is killed. Its lease has to expire before another may lead."),
            ),
            EventKind::Left => {
                let denials = ledger.rows.get(event.elector).map_or(0, |row| row.denied.len());
                timed(
                    at,
                    Style::new(),
                    &format!("{identity} is withdrawn, after {denials} denials."),
                )
            }
        }
    }
}

fn told_takeover(role: &Role, takeover: &Acquisition, guarded: bool, at: Duration) -> Vec<String> {
    let Acquisition::Takeover {
        from,
        since_renewal,
        duration,
        counted,
    } = takeover
    else {
        return Vec::new();
    };
    let Role { identity, lease, .. } = role;
    let early = since_renewal < duration;
    let (style, verdict) = match (early, counted) {
        (true, _) => (BAD, format!("good for {} s", duration.as_secs())),
        (false, false) => (
            DENIAL,
            "expired, but does not count the change of leader".to_owned(),
        ),
        (false, true) => (GOOD, "expired".to_owned()),
    };
    let allowed = if guarded { ": allowed" } else { "" };
    let seconds = since_renewal.as_secs_f64();
    let text =
        format!("{identity} takes {lease} from {from}, renewed {seconds:.1} s ago and {verdict}{allowed}.");
    let mut lines = timed(at, style, &text);
    if early || !counted {
        lines.extend(role.flaw_in_words().into_iter().flat_map(indented));
    }
    lines
}

/// A denial as a client shows it.
fn quoted(error: &ApiError) -> Vec<String> {
    let indent = " ".repeat(INDENT);
    let bar = format!("{indent}│ ");
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&bar)
        .subsequent_indent(&bar);
    let text = format!("Error from server ({}): {}", error.reason, error.message);
    textwrap::wrap(&text, options)
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect()
}

fn timed(at: Duration, style: Style, text: &str) -> Vec<String> {
    let time = format!("{:5.1} s  ", at.as_secs_f64());
    let mut lines = styled(style, &indented(text));
    if let Some(first) = lines.first_mut() {
        *first = format!(
            "{FAINT}{time}{FAINT:#}{}",
            first.replacen(&" ".repeat(INDENT), "", 1)
        );
    }
    lines
}

fn indented(text: &str) -> Vec<String> {
    let indent = " ".repeat(INDENT);
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&indent)
        .subsequent_indent(&indent);
    textwrap::wrap(text, options)
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect()
}

fn styled(style: Style, lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("{style}{line}{style:#}"))
        .collect()
}
