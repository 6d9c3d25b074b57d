//! How far a policy may let clocks differ: never so far that a rule goes off in silence.
//!
//! A write is early when the lease's age is under its duration **less the slack of the clocks**. So a slack as long as
//! the shortest duration that the policy lets pass would be the end of `takeover-before-expiry` for such leases, and
//! of `foreign-release` and `deleted-while-held`, with nothing to see of it.

use super::{
    Action, LeasePolicy, Seconds,
    rules::{DurationOutOfBounds, RuleSettings},
};

/// The default of `clockSlack`: what the clocks of API servers that are kept by NTP differ by at the very most, in the
/// whole seconds of their stamps. Allowed whatever the durations: who lets leases last one second has chosen that.
pub(super) const DEFAULT_CLOCK_SLACK: Seconds = Seconds::new(1);

/// The default of `maxSkew`: well over what a clock that is kept by NTP is off by. Allowed whatever the durations, too.
pub(super) const DEFAULT_MAX_SKEW: Seconds = Seconds::new(5);

/// A tolerance that switches rules off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// The field's name in the document.
    pub(super) field: &'static str,
    pub(super) problem: String,
}

/// Looks for a tolerance that is too wide for the durations which the policy lets pass.
pub(super) fn excess(policy: &LeasePolicy) -> Option<Excess> {
    let (shortest, because) = shortest_duration(policy);
    let LeasePolicy {
        clock_slack,
        max_skew,
        ..
    } = policy;
    let duration = format!("the shortest lease duration that the policy lets pass ({shortest}: {because})");
    if *clock_slack > DEFAULT_CLOCK_SLACK && *clock_slack >= shortest {
        let below = Seconds::new(u32::try_from(shortest.get() - 1).unwrap_or_default());
        let most = below.max(DEFAULT_CLOCK_SLACK);
        return Some(Excess {
            field: "clockSlack",
            problem: format!(
                "{clock_slack} is not shorter than {duration}, so that takeover-before-expiry would let such a lease be \
                 taken at any time; give at most {most}"
            ),
        });
    }
    if *max_skew > DEFAULT_MAX_SKEW && *max_skew > shortest {
        let most = shortest.max(DEFAULT_MAX_SKEW);
        return Some(Excess {
            field: "maxSkew",
            problem: format!(
                "{max_skew} is longer than {duration}, so that foreign-release and deleted-while-held would let such a \
                 lease be ended at any time; give at most {most}, and if it is for clients whose clocks are wrong, \
                 switch clock-skewed off"
            ),
        });
    }
    None
}

/// The shortest duration that a lease may have, over all overrides, and where that comes from. Where the rule is off
/// there is none, and that of the default policy stands in.
fn shortest_duration(policy: &LeasePolicy) -> (Seconds, String) {
    let of = |bounds: &DurationOutOfBounds, place: &str| match bounds.action {
        Action::Off => (
            DurationOutOfBounds::default().min,
            format!("duration-out-of-bounds is off{place}"),
        ),
        _ => (bounds.min, format!("min of duration-out-of-bounds{place}")),
    };
    let own = &policy.rules.duration_out_of_bounds;
    let overridden = policy.overrides.iter().enumerate().filter_map(|(index, one)| {
        let stated = one.rules.duration_out_of_bounds.as_ref()?;
        // Another override may switch on what this one leaves off.
        let mut bounds = DurationOutOfBounds {
            action: Action::Enforce,
            ..own.clone()
        };
        bounds.apply(stated);
        Some(of(&bounds, &format!(" in override {}", index + 1)))
    });
    overridden.fold(
        of(own, ""),
        |shortest, other| {
            if other.0 < shortest.0 { other } else { shortest }
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;

    /// That the document is refused with these words, and read with the greatest value that they allow.
    #[track_caller]
    fn refused(document: &str, expected: &str, most: &str) {
        let message = Policy::parse(document).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        let advice = format!("give at most {most}");
        assert!(message.contains(&advice), "{message}");
        let (before, rest) = document.split_once(": ").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        let mended = format!("{before}: {most}\n{rest}");
        assert!(Policy::parse(&mended).is_ok(), "{mended}");
    }

    #[test]
    fn a_slack_that_would_switch_a_rule_off_is_refused_with_its_place() {
        refused(
            "clockSlack: 1h\n",
            "line 1, column 13, clockSlack: 1h is not shorter than the shortest lease duration that the policy lets pass \
             (5s: min of duration-out-of-bounds)",
            "4s",
        );
        refused(
            "clockSlack: 5s\nmode: audit\n",
            "clockSlack: 5s is not shorter",
            "4s",
        );
        refused(
            "maxSkew: 1h\n",
            "line 1, column 10, maxSkew: 1h is longer than the shortest lease duration that the policy lets pass (5s: min",
            "5s",
        );
        refused("maxSkew: 6s\n", "maxSkew: 6s is longer", "5s");
    }

    #[test]
    fn the_bound_is_the_shortest_duration_that_can_hold() {
        let rules = "rules: {duration-out-of-bounds: {min: 20s}}\n";
        refused(
            &format!("clockSlack: 20s\n{rules}"),
            "(20s: min of duration-out-of-bounds)",
            "19s",
        );
        refused(&format!("maxSkew: 21s\n{rules}"), "(20s: min of", "20s");
        let overridden = "overrides:\n- match: {names: [a]}\n  rules: {duration-out-of-bounds: {min: 10s}}\n";
        refused(
            &format!("clockSlack: 10s\n{rules}{overridden}"),
            "(10s: min of duration-out-of-bounds in override 1)",
            "9s",
        );
        let off = "overrides:\n- match: {names: [a]}\n  rules: {duration-out-of-bounds: {action: off}}\n";
        refused(
            &format!("clockSlack: 10s\n{rules}{off}"),
            "(5s: duration-out-of-bounds is off in override 1)",
            "4s",
        );
        refused(
            "clockSlack: 10s\nrules: {duration-out-of-bounds: {action: off, min: 1h}}\n",
            "(5s: duration-out-of-bounds is off)",
            "4s",
        );
    }

    #[test]
    fn the_defaults_are_allowed_however_short_a_lease_may_be() {
        let short = "rules: {duration-out-of-bounds: {min: 1s}}\n";
        assert!(Policy::parse(short).is_ok());
        refused(&format!("clockSlack: 2s\n{short}"), "(1s: min", "1s");
        refused(&format!("maxSkew: 6s\n{short}"), "(1s: min", "5s");
    }
}
