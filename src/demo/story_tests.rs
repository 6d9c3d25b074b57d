//! The whole story on a paused clock, with the real verdicts.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::{
    admission::Handler,
    audit::AuditLog,
    demo::{
        event::{Acquisition, Event, EventKind, StopReason},
        memory_store::MemoryStore,
        screen::Manner,
        script::Act,
        webhook::{Webhook, WebhookError},
    },
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
};

/// The guard without its server: sockets do not wait for a paused clock.
struct Guard {
    handler: Handler,
    clock: Clock,
}

impl Webhook for Guard {
    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, WebhookError> {
        let answer = self.handler.handle(&body, self.clock.now());
        if answer.status == http::StatusCode::OK {
            Ok(answer.body)
        } else {
            Err(WebhookError::Status(answer.status))
        }
    }
}

async fn told(manner: Manner) -> (Told, String) {
    let start: Timestamp = "2026-01-01T00:00:00.4Z".parse().unwrap();
    let clock = Clock::starting_at(start);
    let policy = ActivePolicy::new(Policy::parse("").unwrap());
    let handler = Handler::new(policy, Arc::new(Metrics::new()), AuditLog::disabled());
    let store = Arc::new(MemoryStore::new(clock, script::GUARDED, Guard { handler, clock }));
    let setting = Setting {
        store: "a test".to_owned(),
        guard: "a test".to_owned(),
    };
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, manner);
    let told = tell(&store, clock, &setting, &mut screen).await.unwrap();
    drop(screen);
    (told, String::from_utf8(out).unwrap())
}

const PIPE: Manner = Manner {
    live: false,
    colour: false,
};

fn role(act: &Act, identity: &str) -> usize {
    act.cast
        .iter()
        .position(|role| role.identity == identity)
        .unwrap()
}

fn events_of<'a>(played: &'a Played, act: &Act, identity: &str) -> Vec<&'a EventKind> {
    let role = role(act, identity);
    played
        .events
        .iter()
        .filter(|event| event.elector == role)
        .map(|Event { kind, .. }| kind)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn without_a_guard_two_lead_at_once_and_with_it_never() {
    let (told, _) = told(PIPE).await;
    assert!(
        told.unguarded.double_leadership() > Duration::from_secs(9),
        "{:?}",
        told.unguarded.double_leadership()
    );
    assert_eq!(told.unguarded.leaders_pushed_out(), 3);
    assert_eq!(told.guarded.double_leadership(), Duration::ZERO);
    assert_eq!(told.guarded.leaders_pushed_out(), 0);
    assert_eq!(told.admission.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn every_bug_is_denied_by_its_own_rule_and_never_leads() {
    let (told, _) = told(PIPE).await;
    let act = script::guarded();
    for (identity, rule) in [
        ("payments-1", "takeover-before-expiry"),
        ("orders-1", "takeover-before-expiry"),
        ("reports-1", "takeover-before-expiry"),
        ("search-1", "transition-not-counted"),
    ] {
        let events = events_of(&told.guarded, &act, identity);
        assert!(
            !events.iter().any(|kind| matches!(kind, EventKind::Leads(_))),
            "{identity}"
        );
        let denial = events.iter().find_map(|kind| match kind {
            EventKind::Denied(error) => Some(error),
            _ => None,
        });
        let denial = denial.unwrap_or_else(|| panic!("{identity} was not denied"));
        assert_eq!(
            (denial.code, denial.reason.as_str()),
            (403, "Forbidden"),
            "{identity}"
        );
        let words = format!("admission webhook \"leases.leasehold.dev\" denied the request: {rule}: ");
        assert!(
            denial.message.starts_with(&words),
            "{identity}: {}",
            denial.message
        );
    }
    let denials = told
        .guarded
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Denied(_)))
        .count();
    assert_eq!(u64::try_from(denials).unwrap(), told.admission.denials);
}

#[tokio::test(start_paused = true)]
async fn correct_electors_take_over_release_and_acquire_behind_the_guard() {
    let (told, _) = told(PIPE).await;
    let act = script::guarded();
    for (successor, predecessor) in [("payments-2", "payments-0"), ("search-2", "search-0")] {
        let events = events_of(&told.guarded, &act, successor);
        let Some(EventKind::Leads(Acquisition::Takeover {
            from,
            since_renewal,
            duration,
            counted,
        })) = events.get(1)
        else {
            panic!("{successor}: {events:?}")
        };
        assert_eq!(from, predecessor);
        assert!(since_renewal >= duration && *counted, "{successor}");
        assert!(
            !events.iter().any(|kind| matches!(kind, EventKind::Denied(_))),
            "{successor}"
        );
    }
    assert!(events_of(&told.guarded, &act, "orders-0").contains(&&EventKind::Stops(StopReason::Released)));
    assert!(events_of(&told.guarded, &act, "orders-2").contains(&&EventKind::Leads(Acquisition::Free)));
    assert_eq!(
        events_of(&told.guarded, &act, "reports-0"),
        [&EventKind::Joined, &EventKind::Leads(Acquisition::Created)],
        "undisturbed to the end"
    );
}

#[tokio::test(start_paused = true)]
async fn renewals_are_not_sent_to_the_guard() {
    let (told, _) = told(PIPE).await;
    let changes = told.guarded.acquisitions() as u64 + told.admission.denials;
    let releases = 1;
    assert_eq!(told.admission.reviews, changes + releases);
    assert!(told.guarded.writes > told.admission.reviews);
}

#[tokio::test(start_paused = true)]
async fn in_a_pipe_the_story_is_plain_lines_of_eighty_columns_in_the_order_of_events() {
    let (_, text) = told(PIPE).await;
    assert!(!text.contains('\x1b'));
    for line in text.lines() {
        assert!(
            line.chars().count() <= WIDTH,
            "{} columns: {line}",
            line.chars().count()
        );
    }
    let mut rest = text.as_str();
    for part in [
        "Act 1: without a guard",
        "Now payments has two leaders",
        "s with two leaders at once; 3 healthy leaders pushed out.",
        "Act 2: with Leasehold",
        "payments-1 tries to take payments, and is denied",
        "Error from server (Forbidden): admission webhook",
        "payments-2 takes payments from payments-0",
        "Never two leaders at once; 0 healthy leaders pushed out.",
        "Tally",
        "leasehold explain takeover-before-expiry",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is missing after its predecessor in\n{text}"));
        rest = &rest[at..];
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_terminal_the_picture_grows_in_place_and_the_cursor_is_given_back() {
    let (_, text) = told(Manner {
        live: true,
        colour: true,
    })
    .await;
    assert!(text.matches("\x1b[J").count() > 100, "redrawn");
    assert_eq!(
        text.matches("\x1b[?25l").count(),
        text.matches("\x1b[?25h").count()
    );
    assert!(text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"));
}
