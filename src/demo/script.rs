//! The play: who is on stage in each act, and what is done to them when.
//!
//! Times are chosen so that attempts of different electors never fall together, and so that both acts take
//! less than twenty seconds with the shortest lease that the default policy allows, 5 s.

use std::time::Duration;

use jiff::SignedDuration;

use super::elector::{Flaw, Timing};

/// The namespace of the first act; its writes are not sent to the guard.
pub const UNGUARDED: &str = "unguarded";
/// The namespace of the second act.
pub const GUARDED: &str = "guarded";

/// One elector of an act.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its identity: the lease's name and a number, as a pod of a StatefulSet has it.
    pub identity: &'static str,
    /// The lease that it wants.
    pub lease: &'static str,
    /// Its timing.
    pub timing: Timing,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl Role {
    /// What is wrong with it, in at most 13 columns.
    pub fn label(&self) -> &'static str {
        match self.flaw {
            Flaw::None => "correct",
            Flaw::WallClock(_) => "clock +1 hour",
            Flaw::OwnPatience(_) => "impatient",
            Flaw::BlindPatch => "blind",
            Flaw::MiscountsTransitions => "miscounts",
        }
    }

    /// What is wrong with it, in one sentence; none if nothing is.
    pub fn flaw_in_words(&self) -> Option<&'static str> {
        match self.flaw {
            Flaw::None => None,
            Flaw::WallClock(_) => {
                Some("Its clock is an hour ahead, and it trusts the renew time in the record.")
            }
            Flaw::OwnPatience(_) => Some("It waits 2 s, a setting of its own; the record says 8 s."),
            Flaw::BlindPatch => Some("It never looks whether the lease is held, and patches it blindly."),
            Flaw::MiscountsTransitions => {
                Some("Whoever tells leaders apart by that count takes the new one for the old.")
            }
        }
    }
}

/// What is done to an elector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It starts.
    Start,
    /// Its process is killed.
    Kill,
    /// It is asked to stop; a leader releases its lease.
    Leave,
}

/// When something is done to whom.
#[derive(Clone, Copy, Debug)]
pub struct Cue {
    /// Since the act began.
    pub at: Duration,
    /// The elector's number in the cast.
    pub role: usize,
    /// What.
    pub action: Action,
}

/// One act.
#[derive(Clone, Debug)]
pub struct Act {
    /// Where its leases are.
    pub namespace: &'static str,
    /// Who plays, grouped by lease.
    pub cast: Vec<Role>,
    /// What is done, in order.
    pub cues: Vec<Cue>,
    /// When the curtain falls.
    pub length: Duration,
}

const QUICK: Timing = Timing {
    lease_duration: Duration::from_secs(5),
    renew_deadline: Duration::from_secs(3),
    retry_period: Duration::from_secs(1),
};

/// A leader whose renewals lie further apart than an impatient candidate waits.
const SLOW: Timing = Timing {
    lease_duration: Duration::from_secs(8),
    renew_deadline: Duration::from_secs(4),
    retry_period: Duration::from_secs(3),
};

/// The first act: four leases, each with a correct leader and a candidate with a bug.
pub fn unguarded() -> Act {
    let mut act = ActBuilder::new(UNGUARDED);
    act.plays("payments-0", "payments", QUICK, Flaw::None, &[(0, Action::Start)]);
    act.plays(
        "payments-1",
        "payments",
        QUICK,
        hour_ahead(),
        &[(1200, Action::Start)],
    );
    act.plays("orders-0", "orders", QUICK, Flaw::None, &[(0, Action::Start)]);
    act.plays(
        "orders-1",
        "orders",
        QUICK,
        Flaw::BlindPatch,
        &[(1500, Action::Start)],
    );
    act.plays("reports-0", "reports", SLOW, Flaw::None, &[(0, Action::Start)]);
    act.plays(
        "reports-1",
        "reports",
        IMPATIENT,
        OWN_PATIENCE,
        &[(700, Action::Start)],
    );
    act.plays(
        "search-0",
        "search",
        QUICK,
        Flaw::None,
        &[(0, Action::Start), (800, Action::Kill)],
    );
    act.plays(
        "search-1",
        "search",
        QUICK,
        Flaw::MiscountsTransitions,
        &[(200, Action::Start)],
    );
    act.ends_at(7300)
}

/// The second act: the same again behind the guard, with a correct candidate beside the others.
pub fn guarded() -> Act {
    let mut act = ActBuilder::new(GUARDED);
    let whole = &[(0, Action::Start)];
    act.plays(
        "payments-0",
        "payments",
        QUICK,
        Flaw::None,
        &[(0, Action::Start), (3400, Action::Kill)],
    );
    act.plays(
        "payments-1",
        "payments",
        QUICK,
        hour_ahead(),
        &[(1200, Action::Start), (2600, Action::Leave)],
    );
    act.plays(
        "payments-2",
        "payments",
        QUICK,
        Flaw::None,
        &[(300, Action::Start)],
    );
    act.plays(
        "orders-0",
        "orders",
        QUICK,
        Flaw::None,
        &[(0, Action::Start), (5500, Action::Leave)],
    );
    act.plays(
        "orders-1",
        "orders",
        QUICK,
        Flaw::BlindPatch,
        &[(1500, Action::Start), (2900, Action::Leave)],
    );
    act.plays("orders-2", "orders", QUICK, Flaw::None, &[(300, Action::Start)]);
    act.plays("reports-0", "reports", SLOW, Flaw::None, whole);
    act.plays(
        "reports-1",
        "reports",
        IMPATIENT,
        OWN_PATIENCE,
        &[(700, Action::Start)],
    );
    act.plays(
        "search-0",
        "search",
        QUICK,
        Flaw::None,
        &[(0, Action::Start), (800, Action::Kill)],
    );
    act.plays(
        "search-1",
        "search",
        QUICK,
        Flaw::MiscountsTransitions,
        &[(200, Action::Start)],
    );
    act.plays("search-2", "search", QUICK, Flaw::None, &[(500, Action::Start)]);
    act.ends_at(9300)
}

/// Asks every second, like the others, for a lease whose record is [`SLOW`].
const IMPATIENT: Timing = Timing {
    retry_period: Duration::from_secs(1),
    ..SLOW
};
const OWN_PATIENCE: Flaw = Flaw::OwnPatience(Duration::from_secs(2));

fn hour_ahead() -> Flaw {
    Flaw::WallClock(SignedDuration::from_hours(1))
}

struct ActBuilder {
    act: Act,
}

impl ActBuilder {
    fn new(namespace: &'static str) -> Self {
        Self {
            act: Act {
                namespace,
                cast: Vec::new(),
                cues: Vec::new(),
                length: Duration::ZERO,
            },
        }
    }

    fn plays(
        &mut self,
        identity: &'static str,
        lease: &'static str,
        timing: Timing,
        flaw: Flaw,
        cues: &[(u64, Action)],
    ) {
        let role = self.act.cast.len();
        self.act.cast.push(Role {
            identity,
            lease,
            timing,
            flaw,
        });
        let cues = cues.iter().map(|(at, action)| Cue {
            at: Duration::from_millis(*at),
            role,
            action: *action,
        });
        self.act.cues.extend(cues);
    }

    fn ends_at(mut self, milliseconds: u64) -> Act {
        self.act.cues.sort_by_key(|cue| cue.at);
        self.act.length = Duration::from_millis(milliseconds);
        self.act
    }
}
