//! Electors that keep the contract: never denied, and never two at once.

use leasehold::lease::Change;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    scenario::{Scenario, scenario},
    world::{Guard, Judged, run},
};

/// The one delay that a correct candidate may meet: the holder's own manager touched the lease after its last renewal,
/// which moves the stamp, so that the lease seems younger than it is. By one duration at the most.
fn is_delayed_by_a_label(judged: &Judged) -> bool {
    judged.write.change == Change::Takeover
        && judged.is_denied_by("takeover-before-expiry")
        && judged.stamp_valid_for.is_some_and(|left| left > 0)
        && judged.stamp_valid_for > judged.valid_for
}

fn holds(scenario: &Scenario, guard: Guard) -> Result<(), TestCaseError> {
    let history = run(scenario, guard);
    for judged in &history.writes {
        prop_assert!(
            !judged.verdict.would_be_denied() || is_delayed_by_a_label(judged),
            "{judged:#?}"
        );
    }
    prop_assert!(history.overlaps.is_empty(), "two leaders: {:?}", history.overlaps);
    prop_assert!(!history.has_a_number_twice(), "{:?}", history.terms);
    Ok(())
}

proptest! {
    #[test]
    fn who_keeps_the_contract_is_never_denied_and_leads_alone(scenario in scenario(None), is_lean in any::<bool>()) {
        holds(&scenario, if is_lean { Guard::Lean } else { Guard::Full })?;
    }
}

/// What the properties above rest on: that the machine gets to everything that they speak of.
#[test]
fn the_machine_gets_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut count = [0_usize; 9];
    let mut delayed = 0;
    for _ in 0..100 {
        let scenario = scenario(None).new_tree(&mut runner).unwrap().current();
        let history = run(&scenario, Guard::Full);
        let changes = [
            Change::Create,
            Change::Renew,
            Change::Amend,
            Change::Takeover,
            Change::Acquire,
            Change::Release,
            Change::Untouched,
        ];
        for (count, change) in count.iter_mut().zip(changes) {
            *count += history.stored(change);
        }
        count[7] += history.conflicts;
        count[8] += history.restarts;
        delayed += history
            .writes
            .iter()
            .filter(|judged| is_delayed_by_a_label(judged))
            .count();
    }
    assert!(count.iter().all(|count| *count >= 20), "{count:?}");
    assert!(delayed > 0);
}
