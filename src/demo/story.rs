//! The story: an introduction, two acts, a tally, and where to go from here.

use std::{io::Write, sync::Arc, time::Duration};

use anstyle::Style;
use tokio::time::sleep;

use super::{
    DemoError,
    clock::Clock,
    screen::{Screen, WIDTH},
    script,
    stage::{self, Played},
    store::{AdmissionCounts, LeaseStore},
    timeline::{BAD, FAINT, GOOD},
};

const HEADING: Style = Style::new().bold();

/// Time to read what was said before the next thing moves.
const PAUSE: Duration = Duration::from_millis(800);

/// What the story is played on, in the words of the introduction.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What holds the leases.
    pub store: String,
    /// Where the guard listens.
    pub guard: String,
}

/// What came of it all.
#[derive(Debug)]
pub struct Told {
    /// The first act.
    pub unguarded: Played,
    /// The second.
    pub guarded: Played,
    /// What the API server's side counted in the second.
    pub admission: AdmissionCounts,
}

/// Tells the whole story.
///
/// # Errors
/// [`DemoError::Output`] if the screen fails, [`DemoError::Counts`] if the counts cannot be had.
pub async fn tell<S: LeaseStore, W: Write>(
    store: &Arc<S>,
    clock: Clock,
    setting: &Setting,
    screen: &mut Screen<W>,
) -> Result<Told, DemoError> {
    screen.print(introduction(setting))?;
    sleep(PAUSE).await;

    let act = script::unguarded();
    screen.print(heading(
        "Act 1: without a guard",
        "Four programs, each with a lease of its own. Their first copies are correct, and lead. \
         Each second copy has a bug that real programs have had. Nobody checks what they write.",
    ))?;
    let unguarded = stage::play(&act, store, clock, screen).await?;
    screen.print([String::new(), two_leaders(&unguarded)])?;
    sleep(PAUSE).await;

    let before = store.admission_counts().await.map_err(DemoError::Counts)?;
    let act = script::guarded();
    screen.print(heading(
        "Act 2: with Leasehold",
        "The same programs with the same bugs. Now the API server asks Leasehold about every \
         write that is not a plain renewal. In three of them a correct third copy waits, too.",
    ))?;
    let guarded = stage::play(&act, store, clock, screen).await?;
    screen.print([String::new(), two_leaders(&guarded)])?;
    let after = store.admission_counts().await.map_err(DemoError::Counts)?;
    let admission = AdmissionCounts {
        reviews: after.reviews.saturating_sub(before.reviews),
        denials: after.denials.saturating_sub(before.denials),
        failures: after.failures.saturating_sub(before.failures),
    };

    let told = Told {
        unguarded,
        guarded,
        admission,
    };
    screen.print(tally(&told))?;
    screen.print(next_steps())?;
    Ok(told)
}

fn introduction(setting: &Setting) -> Vec<String> {
    let mut lines = vec![
        format!("{HEADING}Leasehold: leader election with and without a guard{HEADING:#}"),
        String::new(),
    ];
    lines.extend(paragraph(
        "A Lease is a small record in Kubernetes by which the copies of a program agree on one leader. \
         It names its holder, who must keep renewing it; another copy may take it over only after it has \
         expired. Nothing in Kubernetes enforces that: whoever writes the record has it.",
    ));
    lines.push(String::new());
    for (name, what) in [("leases in", &setting.store), ("guard", &setting.guard)] {
        lines.push(format!("{FAINT}  {name:<11}{what}{FAINT:#}"));
    }
    lines
}

fn heading(title: &str, text: &str) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{HEADING}{title}{HEADING:#}")];
    lines.extend(paragraph(text));
    lines.push(String::new());
    lines
}

fn paragraph(text: &str) -> Vec<String> {
    textwrap::wrap(text, WIDTH)
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect()
}

fn two_leaders(played: &Played) -> String {
    let seconds = played.double_leadership().as_secs_f64();
    let pushed_out = played.leaders_pushed_out();
    let (style, text) = if seconds > 0.0 {
        (
            BAD,
            format!(
                "In all {seconds:.1} s with two leaders at once; {pushed_out} healthy leaders pushed out."
            ),
        )
    } else {
        (
            GOOD,
            format!("Never two leaders at once; {pushed_out} healthy leaders pushed out."),
        )
    };
    format!("  {style}{text}{style:#}")
}

fn tally(told: &Told) -> Vec<String> {
    let Told {
        unguarded,
        guarded,
        admission,
    } = told;
    let seconds = |played: &Played| format!("{:.1}", played.double_leadership().as_secs_f64());
    let renewals = guarded.writes.saturating_sub(admission.reviews);
    let rows = [
        (
            "writes to leases",
            unguarded.writes.to_string(),
            guarded.writes.to_string(),
        ),
        (
            "  renewals, which the guard never sees",
            "-".to_owned(),
            renewals.to_string(),
        ),
        (
            "  sent to the guard",
            "-".to_owned(),
            admission.reviews.to_string(),
        ),
        ("  denied", "-".to_owned(), admission.denials.to_string()),
        (
            "leases created, acquired or taken over",
            unguarded.acquisitions().to_string(),
            guarded.acquisitions().to_string(),
        ),
        (
            "healthy leaders pushed out",
            unguarded.leaders_pushed_out().to_string(),
            guarded.leaders_pushed_out().to_string(),
        ),
        ("seconds with two leaders", seconds(unguarded), seconds(guarded)),
    ];
    let mut lines = vec![
        String::new(),
        format!(
            "{HEADING}{:<42}{:>11}{:>11}{HEADING:#}",
            "Tally", "unguarded", "guarded"
        ),
    ];
    lines.extend(
        rows.iter()
            .map(|(what, without, with)| format!("{what:<42}{without:>11}{with:>11}")),
    );
    if admission.failures > 0 {
        let text = format!(
            "{} reviews got no answer, and their writes went through: a guard that is down stops nobody.",
            admission.failures
        );
        lines.extend(paragraph(&text));
    }
    lines
}

fn next_steps() -> Vec<String> {
    vec![
        String::new(),
        format!("{HEADING}Next{HEADING:#}"),
        "  leasehold explain takeover-before-expiry     what the first denial is about".to_owned(),
        "  kubectl apply -k manifests/overlays/audit    in a cluster: deny nothing yet".to_owned(),
    ]
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
