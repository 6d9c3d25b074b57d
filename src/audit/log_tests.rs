//! The audit log against a disk that is slow, full or gone, played by a puppet.

use std::sync::mpsc::{self, Receiver, Sender};

use super::*;
use crate::metrics::Metrics;

/// Takes each write apart: waits to be told what to answer, and tells what it was given.
struct Puppet {
    answers: Receiver<io::Result<usize>>,
    writes: Sender<Vec<u8>>,
}

impl fmt::Display for Puppet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("puppet")
    }
}

impl Destination for Puppet {
    fn prepare(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.send(bytes.to_vec()).unwrap();
        self.answers.recv().unwrap().map(|most| most.min(bytes.len()))
    }
    fn reopen(&mut self) {}
}

struct Fixture {
    log: AuditLog,
    metrics: Metrics,
    answers: Sender<io::Result<usize>>,
    writes: Receiver<Vec<u8>>,
}

/// Far longer than any test: what waits for it would hang, not pass.
const LONG: Duration = Duration::from_secs(600);

fn mk_fixture(capacity: usize) -> Fixture {
    let metrics = Metrics::new();
    let (answers, puppet_answers) = mpsc::channel();
    let (puppet_writes, writes) = mpsc::channel();
    let puppet = Box::new(Puppet {
        answers: puppet_answers,
        writes: puppet_writes,
    });
    let log = AuditLog::start(puppet, metrics.audit_log.clone(), capacity, Duration::ZERO).unwrap();
    Fixture {
        log,
        metrics,
        answers,
        writes,
    }
}

impl Fixture {
    fn record(&self, line: &str) {
        self.log.record(line.as_bytes().to_vec());
    }

    fn next_write(&self) -> String {
        String::from_utf8(self.writes.recv().unwrap()).unwrap()
    }

    fn assert_metric(&self, line: &str) {
        let text = self.metrics.encode().unwrap();
        assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_stuck_writer_does_not_block_recorders_and_a_full_queue_drops_and_counts() {
    let fixture = mk_fixture(8);
    fixture.record("one");
    assert_eq!(fixture.next_write(), "one\n");
    // The writer is stuck in its write from here on.
    fixture.record("two");
    fixture.record("six");
    fixture.record("no room");
    fixture.assert_metric("leasehold_audit_log_dropped_lines_total{reason=\"queue_full\"} 1");
    fixture.assert_metric("leasehold_audit_log_queued_bytes 8");
    fixture.answers.send(Ok(LEN)).unwrap();
    assert_eq!(
        fixture.next_write(),
        "two\nsix\n",
        "what waited goes out in one write"
    );
    fixture.answers.send(Ok(LEN)).unwrap();
    assert!(fixture.log.close(LONG));
    fixture.assert_metric("leasehold_audit_log_lines_total 3");
}

const LEN: usize = usize::MAX;

#[test]
fn a_short_write_is_continued_where_it_stopped() {
    let fixture = mk_fixture(1024);
    fixture.record("hello");
    assert_eq!(fixture.next_write(), "hello\n");
    fixture.answers.send(Ok(2)).unwrap();
    assert_eq!(fixture.next_write(), "llo\n");
    fixture.answers.send(Ok(LEN)).unwrap();
    assert!(fixture.log.close(LONG));
}

#[test]
fn a_line_torn_by_an_error_is_written_anew_and_whole_lines_are_not() {
    let fixture = mk_fixture(1024);
    fixture.record("first");
    assert_eq!(fixture.next_write(), "first\n");
    fixture.record("a");
    fixture.record("torn");
    fixture.answers.send(Ok(LEN)).unwrap();
    assert_eq!(fixture.next_write(), "a\ntorn\n");
    fixture.answers.send(Ok(4)).unwrap();
    assert_eq!(fixture.next_write(), "rn\n");
    fixture
        .answers
        .send(Err(io::ErrorKind::StorageFull.into()))
        .unwrap();
    assert_eq!(fixture.next_write(), "torn\n");
    fixture.answers.send(Ok(LEN)).unwrap();
    assert!(fixture.log.close(LONG));
    fixture.assert_metric("leasehold_audit_log_write_errors_total 1");
    fixture.assert_metric("leasehold_audit_log_lines_total 3");
}

#[test]
fn closing_writes_what_is_queued_and_drops_what_comes_after() {
    let fixture = mk_fixture(1024);
    fixture.record("one");
    assert_eq!(fixture.next_write(), "one\n");
    fixture.record("two");
    assert!(!fixture.log.close(Duration::ZERO), "not all is written yet");
    fixture.record("late");
    fixture.answers.send(Ok(LEN)).unwrap();
    fixture.answers.send(Ok(LEN)).unwrap();
    assert!(fixture.log.close(LONG));
    assert_eq!(fixture.next_write(), "two\n");
    fixture.assert_metric("leasehold_audit_log_dropped_lines_total{reason=\"closed\"} 1");
}

#[test]
fn closing_does_not_wait_for_a_destination_that_keeps_failing() {
    let fixture = mk_fixture(1024);
    fixture.record("one");
    assert_eq!(fixture.next_write(), "one\n");
    assert!(!fixture.log.close(Duration::ZERO));
    fixture
        .answers
        .send(Err(io::ErrorKind::BrokenPipe.into()))
        .unwrap();
    assert!(!fixture.log.close(LONG), "gave up");
    fixture.assert_metric("leasehold_audit_log_dropped_lines_total{reason=\"closed\"} 1");
    fixture.assert_metric("leasehold_audit_log_lines_total 0");
}

#[test]
fn a_disabled_log_takes_lines_and_closes() {
    let log = AuditLog::disabled();
    log.record(b"{}".to_vec());
    assert!(log.close(Duration::ZERO));
}

#[test]
fn trouble_is_told_once_in_a_while() {
    let start = Instant::now();
    let mut trouble = Trouble::default();
    assert!(trouble.tell(start));
    assert!(!trouble.tell(start + LOG_PAUSE / 2));
    assert!(trouble.tell(start + LOG_PAUSE));
    assert!(trouble.end());
    assert!(!trouble.end());
    assert!(trouble.tell(start + LOG_PAUSE));
}
