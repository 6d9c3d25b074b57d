use serde_json::Value;

use super::*;
use crate::suggest::testing::{denial, denial_by, duration, log};

const ROOM: Room = Room {
    overrides: 256,
    patterns: 1024,
};

/// Each override as text: what it changes, and where.
fn planned(lines: &[Value], bounds: Bounds, room: Room) -> Option<Vec<String>> {
    let log = log("", lines);
    let entries = entries(&log.needed, bounds, room)?;
    assert!(fits(&entries, room));
    Some(
        entries
            .iter()
            .map(|entry| {
                let Entry {
                    easing,
                    namespaces,
                    names,
                    ..
                } = entry;
                format!("{} {} {}", namespaces.join(","), names.join(","), easing.rule())
            })
            .collect(),
    )
}

#[test]
fn names_stand_before_namespaces_and_equal_names_share_an_override() {
    let lines = [
        denial("a", "x"),
        denial("a", "y"),
        denial("b", "x"),
        denial("b", "y"),
        denial("c", "x"),
        denial_by("transition-miscounted", "a", "x"),
    ];
    let expected = ["c x transition-not-counted", "a,b x,y transition-not-counted"];
    let mut planned = planned(&lines, Bounds::Each, ROOM).unwrap();
    planned.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(planned, expected, "miscounted only warns, by the default policy");
}

#[test]
fn what_needs_other_bounds_has_an_override_of_its_own_and_the_widest_stands_first() {
    let mut lines = vec![duration("shop", "w-x", 1), duration("shop", "payments", 3)];
    lines.extend((0..10).map(|index| duration("shop", &format!("w-{index}"), 2)));
    let log = log("", &lines);
    let of = |bounds| -> Vec<String> {
        let entries = entries(&log.needed, bounds, ROOM).unwrap();
        entries
            .iter()
            .map(|entry| format!("{} {}", entry.names.join(","), entry.easing))
            .collect()
    };
    assert_eq!(
        of(Bounds::Each),
        [
            "w-* {duration-out-of-bounds: {min: 2s}}",
            "w-x {duration-out-of-bounds: {min: 1s}}",
            "payments {duration-out-of-bounds: {min: 3s}}",
        ]
    );
    assert_eq!(
        of(Bounds::Loosest),
        ["payments,w-* {duration-out-of-bounds: {min: 1s}}"]
    );
    assert_eq!(
        of(Bounds::Action),
        ["payments,w-* {duration-out-of-bounds: {action: warn}}"]
    );
}

#[test]
fn for_want_of_room_the_namespaces_with_the_most_names_are_widened_first_and_no_more_than_needed() {
    let mut lines = vec![denial("small", "x"), denial("small", "y")];
    lines.extend((0..9).map(|index| denial("large", &format!("n{index}"))));
    let room = |patterns| Room {
        overrides: 256,
        patterns,
    };
    assert_eq!(
        planned(&lines, Bounds::Each, room(13)).unwrap(),
        [
            "large n0,n1,n2,n3,n4,n5,n6,n7,n8 transition-not-counted",
            "small x,y transition-not-counted"
        ]
    );
    assert_eq!(
        planned(&lines, Bounds::Each, room(12)).unwrap(),
        [
            "large  transition-not-counted",
            "small x,y transition-not-counted"
        ]
    );
    assert_eq!(
        planned(&lines, Bounds::Each, room(3)).unwrap(),
        ["large,small  transition-not-counted"]
    );
    assert_eq!(
        planned(&lines, Bounds::Each, room(1)).unwrap(),
        ["*  transition-not-counted"]
    );
    assert_eq!(planned(&lines, Bounds::Each, room(0)), None);
}

#[test]
fn many_bounds_fall_together_before_anything_is_widened() {
    let lines: Vec<_> = (1..300)
        .map(|day| duration("shop", &format!("n{day}"), 700_000 + day * 86_400))
        .collect();
    let log = log("", &lines);
    let entries = entries(&log.needed, Bounds::Each, ROOM).unwrap();
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!((entry.names.len(), entry.widening), (299, Widening::None));
}

#[test]
fn many_namespaces_of_one_shape_become_a_pattern_and_at_last_all() {
    let shaped: Vec<_> = (0..2000)
        .map(|index| denial(&format!("team-{index}"), "x"))
        .collect();
    assert_eq!(
        planned(&shaped, Bounds::Each, ROOM).unwrap(),
        ["team-*  transition-not-counted"]
    );
    let shapeless: Vec<_> = (0..2000).map(|index| denial(&format!("n{index}"), "x")).collect();
    assert_eq!(
        planned(&shapeless, Bounds::Each, ROOM).unwrap(),
        ["*  transition-not-counted"]
    );
}
