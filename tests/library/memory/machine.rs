//! Any clients and any failures, held against all that truly happened.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use leasehold::{
    lease::{Change, History, LeaseName, Record, SharedIdentity, Stamp, State, Write},
    memory::Memory,
    metrics::memory::MemoryMetrics,
    policy::Policy,
};
use proptest::prelude::*;

/// What one client tries, and whether the API server then stores it.
#[derive(Clone, Debug)]
struct Step {
    action: Action,
    pod: usize,
    /// Under which identity; fewer than pods, so that some share one.
    identity: usize,
    /// Whether the write is stored, where it can be; else another webhook refuses it, or the connection breaks.
    stored: bool,
    /// Whether this replica reviews it.
    reviewed: bool,
    /// Seconds since the step before.
    after: i64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Create,
    Write,
    Release,
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        2 => Just(Action::Create),
        8 => Just(Action::Write),
        1 => Just(Action::Release),
        2 => Just(Action::Delete),
    ];
    let step = (
        action,
        0..3_usize,
        0..2_usize,
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.9),
        0..6_i64,
    )
        .prop_map(|(action, pod, identity, stored, reviewed, after)| Step {
            action,
            pod,
            identity,
            stored,
            reviewed,
            after,
        });
    proptest::collection::vec(step, 0..120)
}

/// What an API server stores, and all that ever happened to it.
#[derive(Default)]
struct World {
    now: i64,
    version: u64,
    uids: usize,
    stored: Option<State<'static>>,
    holder: Option<String>,
    /// When the holder became another than the one before.
    changes: Vec<i64>,
    /// Deleted while held: holder, renewed; and then who created it.
    deleted: Option<(String, i64)>,
    recreations: Vec<(String, String)>,
    /// How many deletions were stored.
    deletions: usize,
    /// Who wrote under an identity, in order, without repetitions.
    authors: HashMap<String, Vec<String>>,
}

const PODS: [&str; 3] = ["p", "q", "r"];
const IDENTITIES: [&str; 2] = ["a", "b"];
const VALID: i64 = 15;

impl World {
    fn at(&self) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + self.now).unwrap()
    }

    /// The attempt that a step makes, if the API server gets as far as a review with it. A create is reviewed even
    /// where the lease exists.
    fn attempt(&mut self, step: &Step) -> Option<Write<'static>> {
        let record = Record {
            holder: Some(IDENTITIES[step.identity].into()),
            duration_seconds: Some(VALID.try_into().unwrap()),
            // A client's own clock, of which no two say the same.
            renew_time: Some(self.at() + SignedDuration::from_micros(self.uids.try_into().unwrap())),
            ..Record::default()
        };
        self.uids += 1;
        let old = match step.action {
            Action::Create => None,
            _ => Some(self.stored.clone()?),
        };
        let new = match step.action {
            Action::Create => State {
                record,
                uid: Some(self.uids.to_string().into()),
                ..State::default()
            },
            Action::Write => State {
                record,
                ..old.clone()?
            },
            Action::Release => State {
                record: Record {
                    holder: None,
                    ..record
                },
                ..old.clone()?
            },
            Action::Delete => State::default(),
        };
        let mut new = new;
        let stamp = Stamp::At(self.at());
        new.stamps.renew_time = stamp;
        new.stamps.holder = stamp;
        if matches!(step.action, Action::Create) {
            new.stamps.created = Some(self.at());
        }
        let change = match (&old, step.action) {
            (None, _) => Change::Create,
            (Some(_), Action::Delete) => Change::Delete,
            (Some(old), _) => Change::between(&old.record, &new.record),
        };
        let mut write = Write {
            lease: LeaseName {
                kind: leasehold::lease::ObjectKind::default(),
                namespace: "shop".into(),
                name: "payments".into(),
            },
            writer: Default::default(),
            change,
            old: old.unwrap_or_default(),
            new,
            reviewed: self.at(),
        };
        write.writer.pod = Some(PODS[step.pod].into());
        Some(write)
    }

    /// Stores an attempt, and notes what truly happened.
    fn store(&mut self, write: &Write<'static>, pod: usize) {
        self.version += 1;
        let holder = write.new.record.holder.as_deref().map(str::to_owned);
        match write.change {
            Change::Create if self.stored.is_some() => return,
            Change::Delete => {
                let old = &write.old;
                self.deleted = old.record.holder.as_deref().map(|holder| {
                    (
                        holder.to_owned(),
                        old.renewed().unwrap().as_second() - 1_795_000_000,
                    )
                });
                self.deletions += 1;
                self.stored = None;
                return;
            }
            Change::Create => {
                if let (Some((before, renewed)), Some(holder)) = (self.deleted.take(), &holder)
                    && before != *holder
                    && self.now - renewed < VALID - 1
                {
                    self.recreations.push((before, holder.clone()));
                }
            }
            _ => {}
        }
        if let Some(holder) = &holder {
            let authors = self.authors.entry(holder.clone()).or_default();
            if authors.last().map(String::as_str) != Some(PODS[pod]) {
                authors.push(PODS[pod].to_owned());
            }
        }
        if holder != self.holder && holder.is_some() {
            self.changes.push(self.now);
        }
        self.holder = holder;
        self.stored = Some(State {
            resource_version: Some(self.version),
            ..write.new.clone()
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any clients, any failures: what is told has happened. A replica that sees only part of the reviews may take
    /// one deletion for another that it did not see, but never tells of one where there was none.
    #[test]
    fn what_is_told_is_true(steps in steps(), sees_all in any::<bool>()) {
        let memory = Memory::new(MemoryMetrics::default());
        let policy = Policy::parse("rules: {flapping: {changes: 0, window: 1h}}").unwrap();
        let mut world = World::default();
        let mut told = 0;
        for step in &steps {
            world.now += step.after;
            let Some(write) = world.attempt(step) else { continue };
            if step.reviewed || sees_all {
                let history = memory.recall(&write).unwrap_or_default();
                memory.remember(&write);
                let verdict = policy.decide_with_history(&write, Some(&history));
                let fired = |rule| verdict.violations.iter().any(|violation| violation.rule.as_str() == rule);
                if fired("recreated-early") {
                    let recreation = history.recreation.as_ref().unwrap();
                    let truly = (recreation.deleted_holder.clone(), recreation.new_holder.clone());
                    told += 1;
                    prop_assert!(told <= world.deletions);
                    if sees_all {
                        prop_assert!(world.recreations.contains(&truly), "{truly:?} of {:?}", world.recreations);
                        prop_assert!(told <= world.recreations.len(), "each once");
                    }
                }
                prop_assert!(history.holder_changes.len() <= world.changes.len());
                if let Some(SharedIdentity { pod, other }) = &history.shared_identity {
                    let authors = &world.authors[write.old.record.holder.as_deref().unwrap()];
                    let first = authors.iter().position(|author| author == pod).unwrap();
                    let between = authors[first..].iter().position(|author| author == other);
                    let back = between.and_then(|between| {
                        authors[first + between..].iter().position(|author| author == pod)
                    });
                    prop_assert!(back.is_some(), "{pod}, {other} of {authors:?}");
                }
            }
            if step.stored {
                world.store(&write, step.pod);
            }
        }
    }
}

/// The same machine finds something to tell, or the property above proves nothing.
#[test]
fn the_machine_finds_what_there_is() {
    let found = |steps: &[(Action, usize, usize)]| {
        let memory = Memory::new(MemoryMetrics::default());
        let mut world = World::default();
        let mut last = History::default();
        for (action, pod, identity) in steps {
            world.now += 1;
            let step = Step {
                action: *action,
                pod: *pod,
                identity: *identity,
                stored: true,
                reviewed: true,
                after: 1,
            };
            let write = world.attempt(&step).unwrap();
            last = memory.recall(&write).unwrap_or_default();
            memory.remember(&write);
            world.store(&write, *pod);
        }
        last
    };
    use Action::{Create, Delete, Write};
    let recreated = found(&[
        (Create, 0, 0),
        (Write, 0, 0),
        (Delete, 1, 0),
        (Create, 1, 1),
        (Write, 1, 1),
    ]);
    assert!(recreated.recreation.is_some(), "{recreated:?}");
    assert_eq!(recreated.holder_changes.len(), 1, "{recreated:?}");
    let shared = found(&[(Create, 0, 0), (Write, 1, 0), (Write, 0, 0), (Write, 1, 0)]);
    assert!(shared.shared_identity.is_some(), "{shared:?}");
}
