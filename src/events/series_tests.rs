use super::*;
use crate::lease::testing::at;

fn occurrence(name: &str, note: &str, seconds: i64) -> Occurrence {
    Occurrence {
        regarding: Regarding {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            ..Regarding::default()
        },
        reason: "Reason".into(),
        action: "Denied",
        note: note.to_owned(),
        told_apart_by_note: false,
        at: at(seconds),
    }
}

struct Fixture {
    book: SeriesBook,
    now: Instant,
    seconds: i64,
}

impl Fixture {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            book: SeriesBook::new(now),
            now,
            seconds: 0,
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.seconds += i64::try_from(duration.as_secs()).unwrap();
    }

    fn occurs(&mut self, name: &str) {
        let occurrence = occurrence(name, "note", self.seconds);
        assert!(self.book.take_in(occurrence, self.now));
    }

    /// What is to be written now: `create NAME COUNT` or `update EVENT COUNT`; answered with that outcome.
    fn write(&mut self, outcome: impl FnOnce(&str) -> Outcome) -> String {
        let Next::Write(key, write) = self.book.next(self.now) else {
            return "nothing".to_owned();
        };
        let (text, told) = match write {
            Write::Create { first, told } => (format!("create {}", first.regarding.name), told),
            Write::Update { name, told, .. } => (format!("update {name}"), told),
        };
        assert!(told.last <= at(self.seconds));
        let lost = self.book.written(&key, told, outcome(&text), self.now);
        format!(
            "{text} {}{}",
            told.count,
            if lost > 0 {
                format!(" lost {lost}")
            } else {
                String::new()
            }
        )
    }

    fn write_well(&mut self) -> String {
        self.write(|text| Outcome::Written(format!("event of {text}")))
    }
}

#[test]
fn the_first_is_written_at_once_and_the_same_again_now_and_then() {
    let mut fixture = Fixture::new();
    fixture.occurs("a");
    assert_eq!(fixture.write_well(), "create a 1");
    assert_eq!(fixture.book.next(fixture.now), Next::Nothing);
    for _ in 0..999 {
        fixture.occurs("a");
    }
    assert_eq!(
        fixture.book.next(fixture.now),
        Next::WaitUntil(fixture.now + SERIES_PAUSE)
    );
    fixture.pass(SERIES_PAUSE);
    assert_eq!(fixture.write_well(), "update event of create a 1000");
    assert_eq!(fixture.book.next(fixture.now), Next::Nothing);
}

#[test]
fn other_objects_reasons_and_notes_are_other_series_where_they_are_to_be() {
    let mut fixture = Fixture::new();
    for (name, reason, note, by_note) in [
        ("a", "Reason", "one", false),
        ("a", "Reason", "two", false),
        ("b", "Reason", "one", false),
        ("a", "Other", "one", false),
        ("c", "Reason", "one", true),
        ("c", "Reason", "two", true),
    ] {
        let occurrence = Occurrence {
            reason: reason.into(),
            told_apart_by_note: by_note,
            ..occurrence(name, note, 0)
        };
        assert!(fixture.book.take_in(occurrence, fixture.now));
    }
    assert_eq!(fixture.book.len(), 5);
}

#[test]
fn all_together_keep_a_pace_after_a_burst() {
    let mut fixture = Fixture::new();
    for number in 0..BURST + 2 {
        fixture.occurs(&number.to_string());
    }
    for _ in 0..BURST {
        assert!(fixture.write_well().starts_with("create"));
    }
    for _ in 0..2 {
        assert_eq!(fixture.write_well(), "nothing");
        let Next::WaitUntil(then) = fixture.book.next(fixture.now) else {
            panic!("there is something to wait for");
        };
        assert!(then <= fixture.now + WRITE_INTERVAL);
        fixture.now = then;
        assert!(fixture.write_well().starts_with("create"));
    }
}

#[test]
fn a_series_that_paused_long_is_finished_and_the_next_is_a_new_event() {
    let mut fixture = Fixture::new();
    fixture.occurs("a");
    assert_eq!(fixture.write_well(), "create a 1");
    fixture.pass(FINISHED_AFTER - Duration::from_secs(1));
    fixture.occurs("a");
    assert_eq!(fixture.write_well(), "update event of create a 2");
    fixture.pass(FINISHED_AFTER);
    fixture.occurs("a");
    assert_eq!(fixture.write_well(), "create a 1");
}

#[test]
fn an_event_that_is_gone_is_created_anew_with_what_was_not_told_yet() {
    let mut fixture = Fixture::new();
    for _ in 0..3 {
        fixture.occurs("a");
    }
    assert_eq!(fixture.write_well(), "create a 3");
    fixture.occurs("a");
    fixture.occurs("a");
    fixture.pass(SERIES_PAUSE);
    assert_eq!(fixture.write(|_| Outcome::Gone), "update event of create a 5");
    assert_eq!(fixture.write_well(), "create a 2");
}

#[test]
fn a_failure_is_tried_again_later_with_all_that_came_meanwhile_and_a_refusal_is_not() {
    let mut fixture = Fixture::new();
    fixture.occurs("a");
    fixture.occurs("b");
    let failed = fixture.write(|_| Outcome::Failed);
    assert!(failed == "create a 1" || failed == "create b 1", "{failed}");
    assert_eq!(fixture.write_well(), "nothing", "whoever else would fail as well");
    fixture.occurs("a");
    fixture.occurs("b");
    fixture.pass(RETRY_PAUSE);
    let first = fixture.write_well();
    fixture.pass(WRITE_INTERVAL);
    let written = [first, fixture.write(|_| Outcome::Refused)];
    let [well, refused] = written
        .each_ref()
        .map(|text| text.split_once(" 2").map(|(_, rest)| rest));
    assert!(
        [well, refused].contains(&Some("")) && [well, refused].contains(&Some(" lost 2")),
        "{written:?}"
    );
    assert_eq!(fixture.book.len(), 1);
}

#[test]
fn there_is_a_bound_to_series_and_finished_ones_make_room() {
    let mut fixture = Fixture::new();
    for number in 0..MOST_SERIES {
        fixture.occurs(&number.to_string());
    }
    assert!(!fixture.book.take_in(occurrence("more", "note", 0), fixture.now));
    assert!(
        fixture.book.take_in(occurrence("7", "note", 0), fixture.now),
        "the same again"
    );
    fixture.book.close();
    while fixture.write_well() != "nothing" {}
    fixture.pass(FINISHED_AFTER);
    fixture.occurs("more");
    assert_eq!(fixture.book.len(), 1);
}

#[test]
fn at_the_end_nothing_is_waited_for_and_nothing_tried_again() {
    let mut fixture = Fixture::new();
    fixture.occurs("a");
    assert_eq!(fixture.write_well(), "create a 1");
    fixture.occurs("a");
    fixture.book.close();
    assert_eq!(
        fixture.write(|_| Outcome::Failed),
        "update event of create a 2 lost 1"
    );
    assert_eq!(fixture.book.next(fixture.now), Next::Nothing);
}
