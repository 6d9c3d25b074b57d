//! Electors that break one clause of the contract each: what they take early does not pass.
//!
//! Each property is held against the same machine without a guard, which must find two leaders, or the property would
//! prove nothing.

use leasehold::lease::{Change, Clock};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    elector::Breach,
    scenario::{Scenario, a_quarter_of_the_cases, scenario},
    world::{Guard, History, Judged, run},
};

/// Whether a write must be denied for being early, by true time: a takeover, or the release or shortening of another's lease.
fn is_early(scenario: &Scenario, judged: &Judged) -> bool {
    let write = &judged.write;
    let provable = match write.change {
        Change::Takeover => scenario.provable(),
        _ if (write.is_release() || write.shortens()) && !judged.by_the_holder => {
            match judged.verdict.evidence.map(|evidence| evidence.clock) {
                Some(Clock::ApiServer) => scenario.provable(),
                _ => scenario.provable_by_our_clock(),
            }
        }
        _ => return false,
    };
    judged.valid_for.is_some_and(|left| left >= provable)
}

/// For how long two may lead: no longer than what is too little to prove.
fn longest_tolerable_overlap(scenario: &Scenario, breach: Breach) -> i64 {
    match breach {
        // They clear or shorten leases, some by a write without a stamp.
        Breach::ClearThenTake | Breach::ShortenThenTake | Breach::NoResourceVersion => {
            scenario.provable_by_our_clock().max(scenario.provable())
        }
        _ => scenario.provable(),
    }
}

fn is_harmed(scenario: &Scenario, breach: Breach, history: &History) -> bool {
    match breach {
        Breach::NoIncrement => history.has_a_number_twice(),
        _ => history.longest_overlap() > longest_tolerable_overlap(scenario, breach),
    }
}

fn holds(scenario: &Scenario, breach: Breach, guard: Guard) -> Result<(), TestCaseError> {
    let history = run(scenario, guard);
    for judged in &history.writes {
        if is_early(scenario, judged) {
            prop_assert!(judged.verdict.would_be_denied() && !judged.stored, "{judged:#?}");
        }
        // A lease may seem younger than it is for a label; or look to a correct elector as it looked long before, for
        // somebody wrote an old record once more.
        let is_too_early = judged
            .valid_for
            .max(judged.stamp_valid_for)
            .is_some_and(|left| left > 0);
        if judged.breach.is_none() && (judged.write.change != Change::Takeover || !is_too_early) {
            prop_assert!(
                !judged.verdict.would_be_denied(),
                "a correct elector: {judged:#?}"
            );
        }
    }
    prop_assert!(
        !is_harmed(scenario, breach, &history),
        "{} ms, {:?}",
        history.longest_overlap(),
        history.terms
    );
    Ok(())
}

/// Looks for a case that does harm without a guard; the same case must do none with it.
fn is_found(breach: Breach, without: Guard) {
    const CASES: usize = 500;
    let mut runner = TestRunner::deterministic();
    for _ in 0..CASES {
        let scenario = scenario(Some(breach)).new_tree(&mut runner).unwrap().current();
        if is_harmed(&scenario, breach, &run(&scenario, without)) {
            for guard in [Guard::Lean, Guard::Full] {
                assert!(
                    !is_harmed(&scenario, breach, &run(&scenario, guard)),
                    "{breach:?} {guard:?}"
                );
            }
            return;
        }
    }
    panic!("{breach:?} does no harm under {without:?} in {CASES} cases: the property proves nothing");
}

macro_rules! breaches {
    ($($name:ident: $breach:ident by $rules:expr,)*) => {
        $(mod $name {
            use super::*;

            proptest! {
                #![proptest_config(a_quarter_of_the_cases())]
                #[test]
                fn takes_nothing_early(scenario in scenario(Some(Breach::$breach)), is_lean in any::<bool>()) {
                    let guard = if is_lean { Guard::Lean } else { Guard::Full };
                    holds(&scenario, Breach::$breach, guard)?;
                }
            }

            #[test]
            fn does_harm_without_a_guard() {
                is_found(Breach::$breach, Guard::Off);
            }

            #[test]
            fn does_harm_without_the_rules_against_it() {
                is_found(Breach::$breach, Guard::Without(&$rules));
            }
        })*

        #[test]
        fn every_breach_has_its_properties() {
            assert_eq!(Breach::ALL, [$(Breach::$breach),*]);
        }
    };
}

breaches! {
    own_duration: OwnDuration by ["takeover-before-expiry"],
    // Either refuses the second winner of a race.
    no_resource_version: NoResourceVersion by ["takeover-before-expiry", "transition-not-counted"],
    no_increment: NoIncrement by ["transition-not-counted"],
    instant_steal: InstantSteal by ["takeover-before-expiry"],
    wall_clock: WallClock by ["takeover-before-expiry"],
    clear_then_take: ClearThenTake by ["foreign-release"],
    shorten_then_take: ShortenThenTake by ["foreign-release"],
    blind_then_take: BlindThenTake by ["stamp-tampered"],
}
