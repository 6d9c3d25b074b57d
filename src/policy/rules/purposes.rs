//! For which purposes of a lease a rule fires.

use crate::{lease::Purpose, policy::Action};

/// The most that a rule leads to, by the purpose of the lease. [`Action::Off`]: the rule does not fire there.
///
/// Every purpose is a field, so that a rule says something of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purposes {
    /// For a lease with a duration.
    pub timed: Action,
    /// For a lease that counts its holders and has no duration.
    pub counted: Action,
    /// For a lease with both times, and neither a duration nor a count.
    pub beating: Action,
    /// For a lease that elects nobody by time. Never over [`Action::Audit`]: a lock, a status board or a claim is nobody's
    /// mistake.
    pub untimed: Action,
}

impl Purposes {
    /// Only leases that expire.
    pub const TIMED: Self = Self {
        timed: Action::Enforce,
        counted: Action::Off,
        beating: Action::Off,
        untimed: Action::Off,
    };

    /// Leases that expire or count; a probable election is noted.
    pub const ELECTIONS: Self = Self {
        timed: Action::Enforce,
        counted: Action::Enforce,
        beating: Action::Audit,
        untimed: Action::Off,
    };

    /// The most that the rule leads to for this purpose.
    pub fn cap(self, purpose: Purpose) -> Action {
        match purpose {
            Purpose::Timed => self.timed,
            Purpose::Counted => self.counted,
            Purpose::Beating => self.beating,
            Purpose::Untimed => self.untimed,
        }
    }

    /// In words: the purposes for which the rule fires, each with its cap where it has one, as in
    /// `timed, counted, beating (at most audit)`.
    pub fn in_words(self) -> String {
        let words = Purpose::ALL
            .into_iter()
            .filter_map(|purpose| match self.cap(purpose) {
                Action::Off => None,
                Action::Enforce => Some(purpose.to_string()),
                cap => Some(format!("{purpose} (at most {cap})")),
            });
        words.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::CATALOGUE;

    #[test]
    fn no_rule_denies_or_warns_where_nobody_is_elected_by_time() {
        for entry in CATALOGUE {
            assert!(entry.purposes.untimed <= Action::Audit, "{}", entry.name);
        }
    }

    #[test]
    fn one_rule_alone_warns_of_a_probable_election() {
        let warning: Vec<_> = CATALOGUE
            .iter()
            .filter(|entry| entry.purposes.beating > Action::Audit)
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(warning, ["duration-out-of-bounds"]);
    }

    #[test]
    fn every_rule_fires_for_leases_that_expire() {
        for entry in CATALOGUE {
            assert_eq!(entry.purposes.timed, Action::Enforce, "{}", entry.name);
        }
    }

    #[test]
    fn purposes_are_listed_with_their_caps() {
        assert_eq!(Purposes::TIMED.in_words(), "timed");
        assert_eq!(
            Purposes::ELECTIONS.in_words(),
            "timed, counted, beating (at most audit)"
        );
    }
}
