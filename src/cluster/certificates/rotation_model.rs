//! Rotations walked in every order: two writers that both believe to be elected, three replicas, two API servers that
//! learn of `caBundle` late, and a crash between any two steps.
//!
//! Each read, decision and write is an event of its own, so that whatever is decided may be overtaken before it is
//! written. Writes are refused as an API server refuses them: by resourceVersion, and by nothing else.
//!
//! The clock by which certificates are judged may jump, as for a machine that slept; the steady clock that waits are
//! measured by does not.

#[path = "rotation_world.rs"]
mod world;

use proptest::prelude::*;

use self::world::{API_SERVERS, Damage, Event, REPLICAS, WRITERS, World};
use super::*;

impl World {
    /// No leaf is served that an API server would refuse, whether it uses `caBundle` as it is or as it was lately.
    fn ensure_trusted(&self) -> Result<(), TestCaseError> {
        let current = self.configurations.len() - 1;
        for (number, replica) in self.replicas.iter().enumerate() {
            let Some(issuer) = replica.serving.as_ref().map(|leaf| leaf.issuer.as_ref().unwrap()) else {
                continue;
            };
            for view in self.views.iter().chain([&current]) {
                let (since, webhooks) = &self.configurations[*view];
                for webhook in webhooks {
                    prop_assert!(
                        webhook
                            .authorities
                            .iter()
                            .any(|authority| authority.der == *issuer),
                        "replica {number} serves a leaf of {issuer:?}, not in the caBundle of {since}: {self:#?}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether what a replica serves has expired: then nothing can cut it off any more.
    fn has_expired(&self) -> bool {
        let mut leaves = self
            .replicas
            .iter()
            .filter_map(|replica| replica.serving.as_ref());
        leaves.any(|leaf| leaf.validity.expired(self.clock()))
    }

    /// Everybody does what there is to do, in turn, until nothing is left to do; `after_each` event something may be
    /// looked at.
    fn settle_and(
        &mut self,
        mut after_each: impl FnMut(&Self) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        // A second time for a renewal that became due towards the end of the first; the next is far off by then.
        for _ in 0..2 {
            for event in (0..60).flat_map(|_| round(0, None)) {
                self.happen(&event);
                after_each(self)?;
            }
            if self.ensure_settled().is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.settle_and(|_| Ok(())).unwrap();
    }

    fn ensure_settled(&self) -> Result<(), TestCaseError> {
        let contents = self.secret.as_ref().map(|secret| &secret.value);
        let Some(Contents {
            authority: Part::Good(authority),
            leaf: Part::Good(leaf),
            retiring,
            request,
            ..
        }) = contents
        else {
            return Err(TestCaseError::fail(format!("no CA or no leaf: {self:#?}")));
        };
        prop_assert!(retiring.is_empty(), "{self:#?}");
        prop_assert!(authority.validity.holds(self.clock()), "{self:#?}");
        prop_assert!(leaf.validity.holds(self.clock()), "{self:#?}");
        prop_assert_eq!(*request, None);
        prop_assert_eq!(leaf.issuer.as_ref(), Some(&authority.der));
        for webhook in self.configuration().value {
            prop_assert_eq!(&webhook.authorities, &vec![authority.clone()]);
            prop_assert!(!webhook.broken);
        }
        for replica in &self.replicas {
            prop_assert_eq!(replica.serving.as_ref(), Some(leaf));
        }
        Ok(())
    }
}

fn writer_turn(writer: usize) -> [Event; 3] {
    [
        Event::WriterReadsConfiguration(writer),
        Event::WriterReadsSecretAndDecides(writer),
        Event::WriterWrites(writer),
    ]
}

fn replica_turn(replica: usize) -> [Event; 4] {
    [
        Event::ReplicaReadsConfiguration(replica),
        Event::ReplicaReads(replica),
        Event::ReplicaServes(replica),
        Event::ReplicaReports(replica),
    ]
}

/// Ten seconds in which every replica but one, and one of the writers, do what there is to do.
fn round(writer: usize, stuck: Option<usize>) -> Vec<Event> {
    let replicas = (0..REPLICAS).filter(|replica| Some(*replica) != stuck);
    // What is reported for the first time is served at the next look, and reported at the one after.
    let replicas = replicas.flat_map(|replica| (0..3).flat_map(move |_| replica_turn(replica)));
    replicas
        .chain(writer_turn(writer))
        .chain([Event::Time(10)])
        .collect()
}

/// Mostly whole turns, so that rotations go on while somebody is stuck between any two events of a turn.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let one = |event: Event| vec![event];
    prop_oneof![
        4 => (1..70_u64).prop_map(move |seconds| one(Event::Time(seconds))),
        1 => prop_oneof![3 => Just(Request::Authority), 1 => Just(Request::Leaf)]
            .prop_map(move |request| one(Event::Ask(request))),
        8 => (0..WRITERS).prop_map(|writer| writer_turn(writer).to_vec()),
        1 => (0..WRITERS).prop_map(move |writer| one(Event::WriterReadsConfiguration(writer))),
        2 => (0..WRITERS).prop_map(move |writer| one(Event::WriterReadsSecretAndDecides(writer))),
        1 => (0..WRITERS).prop_map(move |writer| one(Event::WriterWrites(writer))),
        1 => (0..WRITERS).prop_map(move |writer| one(Event::WriterCrashes(writer))),
        10 => (0..REPLICAS).prop_map(|replica| replica_turn(replica).to_vec()),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaReadsConfiguration(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaReads(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaServes(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaReports(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaCrashes(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaLeaves(replica))),
        1 => (0..API_SERVERS).prop_map(move |server| one(Event::ApiServerLearns(server))),
    ]
}

/// Turns of those who live on, whole or broken off; every replica has one at least as often as the clock moves on.
fn any_turns() -> impl Strategy<Value = Vec<Event>> {
    let replica = |from: usize| move |replica| replica_turn(replica).into_iter().skip(from);
    prop_oneof![
        4 => (1..30_u64).prop_map(move |seconds| {
            let replicas = (0..REPLICAS).flat_map(replica(0));
            replicas.chain([Event::Time(seconds)]).collect()
        }),
        6 => (0..WRITERS, 1..4_usize).prop_map(|(writer, length)| writer_turn(writer).into_iter().take(length).collect()),
        4 => (0..REPLICAS, 0..4_usize).prop_map(move |(number, from)| replica(from)(number).collect()),
        1 => (0..API_SERVERS).prop_map(|server| vec![Event::ApiServerLearns(server)]),
    ]
}

/// Mostly to where something has just expired or is about to.
fn any_jump() -> impl Strategy<Value = i64> {
    prop_oneof![-300..300_i64, -300..50_300_i64, -120_000..100_000_i64]
}

fn any_damage() -> impl Strategy<Value = Vec<Event>> {
    let damage = prop_oneof![
        Just(Damage::SecretDeleted),
        Just(Damage::AuthorityGarbled),
        Just(Damage::LeafGarbled),
        Just(Damage::BundleLost),
        Just(Damage::BundleReplaced),
        Just(Damage::RetiringLost),
        any::<usize>().prop_map(Damage::OlderSecretRestored),
    ];
    damage.prop_map(|damage| vec![Event::Break(damage)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// What a random walk seldom meets: one is stuck for a whole rotation, or two, and then goes on as if nothing had
    /// happened.
    #[test]
    fn whoever_was_stuck_for_a_rotation_takes_nothing_back(
        rounds_before in 0..20_usize,
        rounds_meanwhile in 5..40_usize,
        stuck_writer in any::<bool>(),
        is_new in any::<bool>(),
        stuck_after in 1..4_usize,
    ) {
        let mut world = World::installed();
        world.happen(&Event::Ask(Request::Authority));
        for event in (0..rounds_before).flat_map(|_| round(0, None)) {
            world.happen(&event);
            world.ensure_trusted()?;
        }
        let (turn, others) = if stuck_writer {
            (writer_turn(0).to_vec(), round(1, None))
        } else {
            (replica_turn(0).to_vec(), round(0, Some(0)))
        };
        if is_new && !stuck_writer {
            world.happen(&Event::ReplicaLeaves(0));
        }
        let (first, last) = turn.split_at(stuck_after);
        for event in first {
            world.happen(event);
        }
        world.happen(&Event::Ask(Request::Authority));
        for event in (0..rounds_meanwhile).flat_map(|_| &others) {
            world.happen(event);
            world.ensure_trusted()?;
        }
        for event in last {
            world.happen(event);
            world.ensure_trusted()?;
        }
        world.settle_and(World::ensure_trusted)?;
        world.ensure_settled()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_ca_bundle_is_never_without_the_ca_of_a_leaf_that_is_served(
        events in prop::collection::vec(
            prop_oneof![
                20 => any_events(),
                // A damage that can be made good before anybody is cut off, whatever else happens.
                1 => Just(vec![Event::Break(Damage::RetiringLost)]),
            ],
            1..400,
        ),
    ) {
        let mut world = World::installed();
        world.ensure_settled()?;
        for event in events.iter().flatten() {
            world.happen(event);
            world.ensure_trusted()?;
        }
        world.settle();
        world.ensure_trusted()?;
        world.ensure_settled()?;
    }

    /// Whoever has served before: a replica that starts has only the Secret to go by.
    #[test]
    fn an_older_secret_that_is_restored_cuts_nobody_off(
        rotations in 1..4_usize,
        rounds_before in 0..40_usize,
        which in any::<usize>(),
        events in prop::collection::vec(any_turns(), 0..200),
    ) {
        let mut world = World::installed();
        for _ in 0..rotations {
            world.happen(&Event::Ask(Request::Authority));
            for event in (0..rounds_before).flat_map(|_| round(0, None)) {
                world.happen(&event);
                world.ensure_trusted()?;
            }
        }
        world.happen(&Event::Break(Damage::OlderSecretRestored(which)));
        for event in events.iter().flatten() {
            world.happen(event);
            world.ensure_trusted()?;
        }
        world.settle_and(World::ensure_trusted)?;
        world.ensure_settled()?;
    }

    #[test]
    fn a_machine_that_slept_renews_what_is_left_and_no_more(
        rounds_before in 0..20_usize,
        left in any_jump(),
    ) {
        let mut world = World::installed();
        world.happen(&Event::Ask(Request::Authority));
        for event in (0..rounds_before).flat_map(|_| round(0, None)) {
            world.happen(&event);
        }
        world.rotations = 0;
        world.happen(&Event::Jump(left));
        let mut had_expired = false;
        world.settle_and(|world| {
            had_expired |= world.has_expired();
            if had_expired { Ok(()) } else { world.ensure_trusted() }
        })?;
        world.ensure_settled()?;
        world.ensure_trusted()?;
        // One of the rotation under way, one of the CA that is left, and one of the CA that comes after it.
        prop_assert!(world.rotations <= 3, "{} leaves", world.rotations);
    }

    #[test]
    fn whatever_is_broken_is_made_whole_again(
        events in prop::collection::vec(
            prop_oneof![
                40 => any_events(),
                2 => any_damage(),
                1 => any_jump().prop_map(|left| vec![Event::Jump(left)]),
            ],
            1..300,
        ),
    ) {
        let mut world = World::bare();
        for event in events.iter().flatten() {
            world.happen(event);
        }
        world.settle();
        world.ensure_settled()?;
        world.ensure_trusted()?;
    }
}

#[test]
fn the_walks_rotate() {
    // Or else the properties would hold of nothing.
    let mut world = World::installed();
    for round in 0..20 {
        world.happen(&Event::Ask(if round % 2 == 0 {
            Request::Authority
        } else {
            Request::Leaf
        }));
        world.settle();
    }
    assert_eq!(world.rotations, 20);
}
