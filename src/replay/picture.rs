//! Who led when, as an SVG: a lane a lease, a bar a term, a mark a finding.
//!
//! One file without script, font or image from elsewhere, for light and dark grounds. Whatever stands in it out of a log is
//! text, escaped.

use std::fmt::Write;

use jiff::{Timestamp, Unit};

use super::report::{End, Finding, LeaseReport, Term};

/// In pixels. Lanes have one height, however many there are: squeezed ones cannot be read.
const WIDTH: f64 = 1200.0;
const LABEL: f64 = 280.0;
const MARGIN: f64 = 12.0;
const HEAD: f64 = 34.0;
const LANE: f64 = 34.0;
const BAR: f64 = 20.0;

/// The most bars and marks: beyond some thousands a viewer becomes slow.
const MOST_SHAPES: usize = 4_000;

/// A bar's colour and that of the text in it: Paul Tol's "bright", whose neighbours stay apart for colour-blind people.
/// Colours go by the order in which holders appear in a lane; the name stands in the bar.
const COLOURS: [(&str, &str); 6] = [
    ("#4477aa", "#fff"),
    ("#ccbb44", "#111"),
    ("#aa3377", "#fff"),
    ("#66ccee", "#111"),
    ("#ee6677", "#111"),
    ("#228833", "#fff"),
];

const STYLE: &str = "\
svg{background:#fff;color:#1b1f24;font:12px system-ui,sans-serif}\
text{fill:currentColor}.faint{opacity:.65}.lane{fill:none;stroke:currentColor;stroke-opacity:.25}\
.bar{stroke:currentColor;stroke-opacity:.6}.grid{stroke:currentColor;stroke-opacity:.12}\
.denied{fill:#cc3311;stroke:#fff}.warned{fill:#ee7733;stroke:#fff}.noted{fill:#0077bb;stroke:#fff}\
@media(prefers-color-scheme:dark){svg{background:#15181d;color:#e6e6e6}\
.denied,.warned,.noted{stroke:#15181d}.denied{fill:#ff6b57}}";

/// The picture of these leases, in this order; `of` is how many there are in all.
pub fn svg(leases: &[LeaseReport], of: usize) -> String {
    let first = leases.iter().map(|lease| lease.first).min().unwrap_or_default();
    let last = leases.iter().map(|lease| lease.last).max().unwrap_or_default();
    let mut picture = Picture {
        text: String::new(),
        scale: Scale::of(first, last),
        shapes: 0,
        left_out: 0,
    };
    let lanes = u32::try_from(leases.len()).map_or(f64::MAX, f64::from);
    let height = HEAD + lanes * LANE + 3.0 * MARGIN + 16.0;
    picture.open(height);
    picture.axis(HEAD + lanes * LANE);
    let mut top = HEAD;
    for lease in leases {
        picture.lane(lease, top);
        top += LANE;
    }
    picture.footer(leases.len(), of, top + 2.0 * MARGIN);
    picture.text.push_str("</svg>\n");
    picture.text
}

struct Picture {
    text: String,
    scale: Scale,
    shapes: usize,
    left_out: usize,
}

/// From instants to pixels.
struct Scale {
    first: Timestamp,
    seconds: f64,
}

impl Scale {
    fn of(first: Timestamp, last: Timestamp) -> Self {
        Self {
            first,
            seconds: last.duration_since(first).as_secs_f64().max(1.0),
        }
    }

    fn x(&self, time: Timestamp) -> f64 {
        let plot = WIDTH - LABEL - 2.0 * MARGIN;
        let share = time.duration_since(self.first).as_secs_f64() / self.seconds;
        LABEL + MARGIN + share.clamp(0.0, 1.0) * plot
    }

    /// A distance of ticks that people count in, so that there are at most ten.
    fn step(&self) -> f64 {
        const STEPS: [f64; 16] = [
            1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0,
            86400.0, 604_800.0,
        ];
        let wanted = self.seconds / 10.0;
        let longest = STEPS.last().copied().unwrap_or(1.0);
        let found = STEPS.into_iter().find(|step| *step >= wanted);
        found.unwrap_or_else(|| (wanted / longest).ceil() * longest)
    }
}

impl Picture {
    fn open(&mut self, height: f64) {
        let _ = write!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-label=\"Who led when\">\n<style>{STYLE}</style>\n\
             <defs><pattern id=\"inferred\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><rect width=\"3\" height=\"6\" fill=\"#fff\" fill-opacity=\".3\"/></pattern></defs>\n"
        );
    }

    /// Times in UTC over the lanes, with lines down to `bottom`.
    fn axis(&mut self, bottom: f64) {
        let (first, step) = (self.scale.first, self.scale.step());
        let date = first.round(Unit::Second).unwrap_or(first).to_string();
        let day = date.split('T').next().unwrap_or_default();
        let _ = writeln!(
            self.text,
            "<text x=\"{MARGIN}\" y=\"20\" class=\"faint\">{day}, times in UTC</text>"
        );
        let mut offset = 0.0;
        // The first tick stands on a whole step.
        let past = (first.as_millisecond() % 604_800_000) as f64 / 1000.0;
        let start = (past / step).ceil() * step - past;
        while start + offset <= self.scale.seconds {
            let seconds = jiff::SignedDuration::from_secs_f64(start + offset);
            if let Ok(time) = first.checked_add(seconds) {
                let x = self.scale.x(time);
                let shown = time.round(Unit::Second).unwrap_or(time).to_string();
                let (date, clock) = shown.split_once('T').unwrap_or(("", &shown));
                let label = if step >= 86400.0 {
                    date
                } else {
                    clock.trim_end_matches('Z')
                };
                let _ = writeln!(
                    self.text,
                    "<line class=\"grid\" x1=\"{x:.1}\" y1=\"26\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                     <text x=\"{x:.1}\" y=\"20\" text-anchor=\"middle\" class=\"faint\">{label}</text>"
                );
            }
            offset += step;
        }
    }

    fn lane(&mut self, lease: &LeaseReport, top: f64) {
        let (left, right) = (LABEL + MARGIN, WIDTH - MARGIN);
        let name = format!("{}/{}", lease.namespace, lease.name);
        let renewals = &lease.renewals;
        let how_close = match (renewals.headroom_seconds, renewals.duration_seconds) {
            (Some(headroom), Some(duration)) => format!(", headroom {headroom:.1} s of {duration} s"),
            _ => String::new(),
        };
        let changes = lease.changes + lease.inferred_changes;
        let _ = writeln!(
            self.text,
            "<text x=\"{MARGIN}\" y=\"{:.1}\">{}<title>{}</title></text>\
             <text x=\"{MARGIN}\" y=\"{:.1}\" class=\"faint\" font-size=\"10\">{changes} changes{how_close}</text>\
             <rect class=\"lane\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            top + 13.0,
            escaped(&shortened(&name, 42)),
            escaped(&name),
            top + 25.0,
            top + 5.0,
            right - left,
        );
        let mut holders: Vec<&str> = Vec::new();
        let mut drawn_to = f64::NEG_INFINITY;
        for term in &lease.terms {
            let index = holders.iter().position(|holder| *holder == term.holder);
            let index = index.unwrap_or_else(|| {
                holders.push(&term.holder);
                holders.len() - 1
            });
            let (from, to) = (self.scale.x(term.from), self.scale.x(term.to));
            // Two in one pixel are one to the eye.
            if to - drawn_to < 0.5 || self.shapes >= MOST_SHAPES {
                self.left_out += 1;
                continue;
            }
            drawn_to = to.max(from + 2.0);
            self.bar(term, index, top + 5.0, from, drawn_to);
        }
        for finding in &lease.findings {
            self.mark(finding, top + 5.0);
        }
    }

    fn bar(&mut self, term: &Term, index: usize, top: f64, from: f64, to: f64) {
        self.shapes += 1;
        let (colour, ink) = COLOURS.get(index % COLOURS.len()).copied().unwrap_or(COLOURS[0]);
        let width = to - from;
        let (start, end) = if term.began_before {
            ("before ", term.end)
        } else {
            ("", term.end)
        };
        let title = format!(
            "{}{}: {start}{:.3} to {:.3}, {} renewals, {}",
            term.holder,
            if term.inferred {
                " (inferred from the writer)"
            } else {
                ""
            },
            term.from,
            term.to,
            term.renewals,
            if end == End::Open {
                "still leads"
            } else {
                end.as_str()
            },
        );
        let _ = write!(
            self.text,
            "<g><title>{}</title><rect class=\"bar\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\"/>",
            escaped(&title)
        );
        if term.inferred {
            let _ = write!(
                self.text,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"url(#inferred)\"/>"
            );
        }
        // Some seven pixels a character.
        let room = ((width - 8.0) / 7.0).max(0.0);
        if room >= 2.0 {
            let _ = write!(
                self.text,
                "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{ink}\">{}</text>",
                from + 4.0,
                top + 14.0,
                escaped(&tail(&term.holder, room as usize))
            );
        }
        self.text.push_str("</g>\n");
    }

    /// A triangle for what would be refused, a diamond for a warning, a circle for the rest.
    fn mark(&mut self, finding: &Finding, top: f64) {
        if self.shapes >= MOST_SHAPES {
            self.left_out += 1;
            return;
        }
        self.shapes += 1;
        let (x, y) = (self.scale.x(finding.time), top + BAR / 2.0);
        let (class, shape) = match finding.decision {
            "denied" | "would be denied" => (
                "denied",
                format!("<path d=\"M{x:.1} {:.1}l7 12h-14z\"/>", y - 8.0),
            ),
            "warned" | "would be warned" => (
                "warned",
                format!("<path d=\"M{x:.1} {:.1}l6 6l-6 6l-6 -6z\"/>", y - 6.0),
            ),
            _ => ("noted", format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>")),
        };
        let title = format!(
            "{:.3} {}: {}: {}",
            finding.time, finding.decision, finding.rule, finding.message
        );
        let _ = writeln!(
            self.text,
            "<g class=\"{class}\"><title>{}</title>{shape}</g>",
            escaped(&title)
        );
    }

    fn footer(&mut self, shown: usize, of: usize, y: f64) {
        let mut legend = "A bar is a term, hatched where it is inferred; a triangle would be refused, a diamond warned of, \
                          a circle noted. Point at one to read it."
            .to_owned();
        if shown < of {
            legend.push_str(&format!(" Shown are {shown} of {of} leases."));
        }
        if self.left_out > 0 {
            legend.push_str(&format!(
                " {} terms and marks too close to others are left out.",
                self.left_out
            ));
        }
        let _ = writeln!(
            self.text,
            "<text x=\"{MARGIN}\" y=\"{y:.1}\" class=\"faint\">{legend}</text>"
        );
    }
}

/// So many characters of a text, the last an ellipsis where there are more.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// So many of the last characters of an identity: pods of one workload differ there.
fn tail(identity: &str, most: usize) -> String {
    let characters = identity.chars().count();
    if characters <= most {
        return identity.to_owned();
    }
    let kept: String = identity.chars().skip(characters + 1 - most).collect();
    format!("…{kept}")
}

/// As text of XML 1.0, which has no place for most control characters, escaped or not.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            // Marks that change the direction of what stands beside them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
