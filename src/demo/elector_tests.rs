//! Electors on the store, on a paused clock.

use super::*;
use crate::demo::{
    memory_store::MemoryStore,
    webhook::{Webhook, WebhookError},
};

struct Absent;

impl Webhook for Absent {
    async fn call(&self, _: Vec<u8>) -> Result<Vec<u8>, WebhookError> {
        Err(WebhookError::Timeout)
    }
}

struct World {
    surroundings: Surroundings<MemoryStore<Absent>>,
    told: mpsc::UnboundedReceiver<Event>,
    began: Instant,
}

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn new() -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Arc::new(MemoryStore::new(clock, "guarded", Absent));
        let (events, told) = mpsc::unbounded_channel();
        let surroundings = Surroundings {
            store,
            clock,
            events,
            writes: Arc::default(),
        };
        Self {
            surroundings,
            told,
            began: Instant::now(),
        }
    }

    fn elector(&self, index: usize, flaw: Flaw) -> Elector<MemoryStore<Absent>> {
        Elector {
            index,
            identity: format!("payments-{index}"),
            key: LeaseKey::new("free", "payments"),
            timing: Timing {
                lease_duration: 5 * SECOND,
                renew_deadline: 3 * SECOND,
                retry_period: SECOND,
            },
            flaw,
            surroundings: self.surroundings.clone(),
        }
    }

    fn start(&self, index: usize, flaw: Flaw) -> (tokio::task::JoinHandle<()>, CancellationToken) {
        let leave = CancellationToken::new();
        (tokio::spawn(self.elector(index, flaw).run(leave.clone())), leave)
    }

    /// The next event: its second, its elector, what.
    async fn next(&mut self) -> (u64, usize, EventKind) {
        let event = self.told.recv().await.unwrap();
        ((event.at - self.began).as_secs(), event.elector, event.kind)
    }

    async fn record(&self) -> LeaseSpec {
        self.surroundings
            .store
            .get(&LeaseKey::new("free", "payments"))
            .await
            .unwrap()
            .spec
            .unwrap()
    }
}

fn takeover(kind: &EventKind) -> (&str, i64, bool) {
    match kind {
        EventKind::Leads(Acquisition::Takeover {
            from,
            since_renewal,
            counted,
            ..
        }) => (from, since_renewal.as_secs(), *counted),
        other => panic!("no takeover: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_correct_candidate_waits_for_the_records_duration_and_counts() {
    let mut world = World::new();
    let (leader, _leave) = world.start(0, Flaw::None);
    assert_eq!(world.next().await, (0, 0, EventKind::Leads(Acquisition::Created)));
    let (_candidate, _leave) = world.start(1, Flaw::None);
    sleep(2 * SECOND + SECOND / 2).await;
    leader.abort();
    let (second, elector, kind) = world.next().await;
    assert_eq!(elector, 1);
    assert_eq!(takeover(&kind), ("payments-0", 5, true));
    assert_eq!(second, 7, "renewed at 2");
    let record = world.record().await;
    assert_eq!(record.lease_transitions, Some(1));
    assert_eq!(record.acquire_time, record.renew_time);
}

#[tokio::test(start_paused = true)]
async fn a_correct_candidate_with_a_clock_an_hour_ahead_still_waits() {
    let mut world = World::new();
    let (leader, _leave) = world.start(0, Flaw::None);
    world.next().await;
    let mut fast = world.elector(1, Flaw::None);
    fast.surroundings.clock = fast.surroundings.clock.wrong_by(SignedDuration::from_hours(1));
    let _candidate = tokio::spawn(fast.run(CancellationToken::new()));
    sleep(SECOND / 2).await;
    leader.abort();
    assert_eq!(world.next().await.0, 5);
}

#[tokio::test(start_paused = true)]
async fn an_early_takeover_makes_two_leaders_until_the_old_ones_deadline() {
    let ahead = SignedDuration::from_hours(1);
    for (flaw, second_of_takeover) in [(Flaw::WallClock(ahead), 0), (Flaw::BlindPatch, 0)] {
        let mut world = World::new();
        let (_leader, _leave) = world.start(0, Flaw::None);
        world.next().await;
        let (_thief, _leave) = world.start(1, flaw);
        let (second, elector, kind) = world.next().await;
        assert_eq!((second, elector), (second_of_takeover, 1), "{flaw:?}");
        assert_eq!(takeover(&kind).0, "payments-0");
        assert_eq!(
            world.next().await,
            (4, 0, EventKind::Stops(StopReason::Lost)),
            "{flaw:?}"
        );
        assert_eq!(
            world.record().await.holder_identity.as_deref(),
            Some("payments-1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn patience_of_its_own_is_shorter_than_the_records_duration() {
    let mut world = World::new();
    let mut slow = world.elector(0, Flaw::None);
    slow.timing = Timing {
        lease_duration: 8 * SECOND,
        renew_deadline: 4 * SECOND,
        retry_period: 3 * SECOND,
    };
    let _leader = tokio::spawn(slow.run(CancellationToken::new()));
    world.next().await;
    let (_thief, _leave) = world.start(1, Flaw::OwnPatience(2 * SECOND));
    let (second, elector, kind) = world.next().await;
    assert_eq!((second, elector), (2, 1));
    assert_eq!(takeover(&kind), ("payments-0", 2, true));
}

#[tokio::test(start_paused = true)]
async fn one_that_miscounts_waits_but_does_not_count() {
    let mut world = World::new();
    let (leader, _leave) = world.start(0, Flaw::None);
    world.next().await;
    leader.abort();
    let (_other, _leave) = world.start(1, Flaw::MiscountsTransitions);
    let (second, _, kind) = world.next().await;
    assert_eq!((second, takeover(&kind)), (5, ("payments-0", 5, false)));
    assert_eq!(world.record().await.lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_release_frees_the_lease_for_the_next_attempt() {
    let mut world = World::new();
    let (leader, leave) = world.start(0, Flaw::None);
    world.next().await;
    let (_candidate, _leave) = world.start(1, Flaw::None);
    sleep(SECOND / 2).await;
    leave.cancel();
    assert_eq!(world.next().await, (0, 0, EventKind::Stops(StopReason::Released)));
    leader.await.unwrap();
    let released = world.record().await;
    assert_eq!(released.holder_identity.as_deref(), Some(""));
    assert_eq!(
        (released.lease_duration_seconds, released.lease_transitions),
        (Some(1), Some(0))
    );
    assert_eq!(world.next().await, (1, 1, EventKind::Leads(Acquisition::Free)));
    assert_eq!(world.record().await.lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_changes_renew_time_alone() {
    let mut world = World::new();
    let (_leader, _leave) = world.start(0, Flaw::None);
    world.next().await;
    let before = world.record().await;
    sleep(SECOND + SECOND / 2).await;
    let mut after = world.record().await;
    assert!(after.renew_time > before.renew_time);
    after.renew_time = before.renew_time.clone();
    assert_eq!(after, before);
    assert_eq!(world.surroundings.writes.load(Ordering::Relaxed), 2);
}
