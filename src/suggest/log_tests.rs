use super::*;
use crate::{
    policy::Policy,
    suggest::testing::{denial, denial_by, log},
};

fn text(lines: &[serde_json::Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn empty(strict: bool) -> Log {
    Log::new(Judge::new(&Policy::default()), [], strict)
}

#[test]
fn the_same_record_twice_is_counted_once() {
    let both = [
        denial("shop", "payments"),
        denial_by("renew-time-regressed", "shop", "payments"),
    ];
    let policy = "rules: {renew-time-regressed: {action: enforce}}";
    let mut log = log(policy, &both);
    log.read("replica-2.log", text(&both).as_bytes()).unwrap();
    let mut later = denial("shop", "payments");
    later["uid"] = "another".into();
    later["time"] = "2026-11-21T09:30:00Z".into();
    log.read("replica-3.log", text(&[later]).as_bytes()).unwrap();
    assert_eq!((log.summary().denials, log.summary().duplicates), (5, 2));
    let seen = |rule: &str| match &log.needed.by_rule[&RuleName::find(rule).unwrap()]["shop"] {
        InNamespace::Names(names) => names["payments"].occurrences.clone(),
        InNamespace::Whole(_) => panic!("one name"),
    };
    assert_eq!(seen("renew-time-regressed").count, 1);
    let counted = seen("transition-not-counted");
    assert_eq!(counted.count, 2);
    assert_eq!(counted.first_seen.unwrap().to_string(), "2026-11-20T09:30:00Z");
    assert_eq!(counted.last_seen.unwrap().to_string(), "2026-11-21T09:30:00Z");
}

#[test]
fn what_is_skipped_is_counted_by_reason_with_its_first_place() {
    let record = denial("shop", "payments").to_string();
    let cut = record.get(..record.len() - 9).unwrap();
    let mut log = empty(false);
    log.read("a", format!("hello\n{record}\n\n{cut}\nhello\n").as_bytes())
        .unwrap();
    log.read("b", format!("{cut}\n").as_bytes()).unwrap();
    let summary = log.summary();
    assert_eq!(summary.lines, 5);
    let told = |reason| {
        let skipped = &summary.skipped[&reason];
        (skipped.count, skipped.first.to_string())
    };
    assert_eq!(told(Skip::Foreign), (2, "a:1".to_owned()));
    assert_eq!(told(Skip::CutOff), (2, "a:4".to_owned()));
    assert!(summary.may_hide_a_denial());
}

#[test]
fn strict_stops_at_the_first_line_that_is_skipped() {
    let record = denial("shop", "payments");
    let mut log = empty(true);
    assert_eq!(log.read("a", text(&[record]).as_bytes()).unwrap(), 1);
    let error = log.read("b", &b"\nhello\n"[..]).unwrap_err().to_string();
    assert_eq!(
        error,
        "b:2: not of the audit log; leave --strict out to skip such lines and count them"
    );
}

#[test]
fn the_writers_that_are_kept_are_bounded() {
    let mut lines = Vec::new();
    for index in 0..20 {
        let mut line = denial("shop", "payments");
        line["uid"] = index.into();
        line["uid"] = index.to_string().into();
        line["pod"] = format!("payments-{index}{}", "x".repeat(1000)).into();
        lines.push(line);
    }
    let log = log("", &lines);
    let namespaces = log.needed.by_rule.values().next().unwrap();
    let InNamespace::Names(names) = &namespaces["shop"] else {
        panic!("few names")
    };
    let seen = &names["payments"].occurrences;
    assert_eq!((seen.count, seen.writers.len(), seen.more_writers), (20, 4, true));
    assert!(
        seen.writers
            .iter()
            .all(|it| it.pod.as_ref().unwrap().chars().count() <= 121)
    );
}

#[test]
fn where_there_are_too_many_leases_the_largest_namespace_stands_for_its_own() {
    let mut leases = Leases::default();
    let rule = RuleName::find("transition-not-counted").unwrap();
    let mut note = |namespace: &str, name: String| {
        let denial = Denial {
            rule,
            namespace: namespace.to_owned(),
            name,
            cause: super::super::Cause::Other,
            time: None,
            uid: String::new(),
            writer: super::super::Writer::default(),
        };
        let easing = Easing::of(rule, denial.cause);
        assert!(leases.note(denial, easing, true));
    };
    note("quiet", "payments".to_owned());
    for index in 0..MOST_LEASES + 5 {
        note("loud", format!("n{index}"));
    }
    let namespaces = &leases.by_rule[&rule];
    assert!(matches!(&namespaces["quiet"], InNamespace::Names(names) if names.len() == 1));
    match &namespaces["loud"] {
        InNamespace::Whole(seen) => assert_eq!(seen.occurrences.count, MOST_LEASES as u64 + 5),
        InNamespace::Names(_) => panic!("too many names are kept"),
    }
}

#[test]
fn where_there_are_too_many_namespaces_reading_stops_with_what_to_do() {
    let mut text = String::new();
    for index in 0..=MOST_LEASES {
        text.push_str(&denial(&format!("n{index}"), "payments").to_string());
        text.push('\n');
    }
    let error = empty(false).read("a", text.as_bytes()).unwrap_err().to_string();
    assert!(
        error.starts_with("a:50001: from here on denials are in over 50000 namespaces"),
        "{error}"
    );
}
