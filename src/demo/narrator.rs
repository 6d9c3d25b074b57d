//! Puts into words what happens on stage, as it happens.

use std::{collections::BTreeSet, time::Duration};

use anstyle::Style;

use super::{
    event::{Acquisition, Event, EventKind, StopReason},
    ledger::Ledger,
    screen::WIDTH,
    script::{Act, Role},
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
        match &event.kind {
            EventKind::Joined | EventKind::Left => Vec::new(),
            EventKind::Leads(Acquisition::Created) => timed(
                at,
                Style::new(),
                &format!("{identity} creates the lease {lease} and leads."),
            ),
            EventKind::Leads(Acquisition::Free) => timed(
                at,
                GOOD,
                &format!("{identity} acquires the free lease {lease} and leads."),
            ),
            EventKind::Leads(Acquisition::Takeover {
                from,
                since_renewal,
                duration,
                counted,
            }) => {
                let times = format!("{:.1} s after its last renewal", since_renewal.as_secs_f64());
                let early = since_renewal < duration;
                let (style, verdict) = match (early, counted) {
                    (true, _) => (BAD, format!("which is good for {} s.", duration.as_secs())),
                    (false, false) => (DENIAL, "but leaves the count of leaders unchanged.".to_owned()),
                    (false, true) => (GOOD, "which had expired.".to_owned()),
                };
                let mut lines = timed(
                    at,
                    style,
                    &format!("{identity} takes {lease} from {from} {times}, {verdict}"),
                );
                if early || !counted {
                    lines.extend(role.flaw_in_words().into_iter().flat_map(indented));
                }
                if ledger.leaders(event.elector, at) > 1 {
                    lines.extend(styled(
                        BAD,
                        &indented(&format!("Now {lease} has two leaders: {from} works on.")),
                    ));
                }
                lines
            }
            EventKind::Denied(error) => {
                if !self.denied.insert(event.elector) {
                    return Vec::new();
                }
                let mut lines = timed(
                    at,
                    DENIAL,
                    &format!("{identity} tries to take {lease}, and is denied. It reads:"),
                );
                lines.extend(styled(DENIAL, &quoted(error)));
                lines
            }
            EventKind::Stops(StopReason::Lost) => {
                let both = ledger.double_leadership(event.elector, at).as_secs_f64();
                let text = format!(
                    "{identity} stops: it could not renew in time. {lease} had two leaders for {both:.1} s."
                );
                timed(at, Style::new(), &text)
            }
            EventKind::Stops(StopReason::Released) => timed(
                at,
                Style::new(),
                &format!("{identity} is asked to stop: it releases {lease}."),
            ),
            EventKind::Killed => timed(
                at,
                Style::new(),
                &format!("{identity} is killed. Its lease has to expire before another may lead."),
            ),
        }
    }
}

/// A denial as a client shows it.
fn quoted(error: &ApiError) -> Vec<String> {
    let indent = " ".repeat(INDENT);
    let (first, rest) = (format!("{indent}│ "), format!("{indent}│ "));
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&first)
        .subsequent_indent(&rest);
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
