//! Rotations walked in every order: two writers that both believe to be elected, three replicas, two API servers that
//! learn of `caBundle` late, and a crash between any two steps.
//!
//! Each read, decision and write is an event of its own, so that whatever is decided may be overtaken before it is
//! written. Writes are refused as an API server refuses them: by resourceVersion, and by nothing else.
//!
//! The clock by which certificates are judged may jump, as for a machine that slept; the steady clock that waits are
//! measured by does not.

use proptest::prelude::*;

use super::*;

const WRITERS: usize = 2;
const REPLICAS: usize = 3;
const API_SERVERS: usize = 2;

/// In seconds. Renewed every 10,000 and 5,000 s; nothing expires within a run unless the clock jumps, so that no leaf
/// may ever be refused.
const LIVES: Lives = Lives {
    authority: Duration::from_secs(100_000),
    authority_renew_before: Duration::from_secs(90_000),
    leaf: Duration::from_secs(50_000),
    leaf_renew_before: Duration::from_secs(45_000),
    publish_wait: Duration::from_secs(60),
};

#[derive(Clone, Debug)]
enum Event {
    Time(u64),
    /// The clock jumps to so many seconds before the CA's end, or after it where that is negative; never back.
    Jump(i64),
    Ask(Request),
    WriterReadsConfiguration(usize),
    WriterReadsSecretAndDecides(usize),
    WriterWrites(usize),
    WriterCrashes(usize),
    ReplicaReads(usize),
    ReplicaServes(usize),
    ReplicaReports(usize),
    ReplicaCrashes(usize),
    ReplicaLeaves(usize),
    ApiServerLearns(usize),
    /// Not a part of any rotation: somebody breaks something.
    Break(Damage),
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    SecretDeleted,
    AuthorityGarbled,
    LeafGarbled,
    BundleLost,
    BundleReplaced,
    RetiringLost,
    /// One of those that were, from the first on, and again from there once all were counted.
    OlderSecretRestored(usize),
}

#[derive(Clone, Debug)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// A step, and what it was decided on: the configuration's version, and the Secret.
type Decided = (Step, u64, Option<Versioned<Contents>>);

#[derive(Clone, Debug, Default)]
struct Writer {
    configuration: Option<Versioned<Vec<WebhookBundle>>>,
    published: Option<(Vec<WebhookBundle>, u64)>,
    issued: Option<(Part<LeafFacts>, u64)>,
    decided: Option<Decided>,
}

#[derive(Clone, Debug, Default)]
struct Replica {
    serving: Option<LeafFacts>,
    read: Option<Versioned<Contents>>,
}

#[derive(Debug)]
struct World {
    /// Steady.
    now: u64,
    /// How far the clock is ahead of it.
    ahead: u64,
    next: u64,
    secret: Option<Versioned<Contents>>,
    /// What the Secret was.
    past: Vec<Contents>,
    /// What the configuration was, with the time at which it became so.
    configurations: Vec<(u64, Vec<WebhookBundle>)>,
    /// Which of them each API server uses.
    views: [usize; API_SERVERS],
    writers: [Writer; WRITERS],
    replicas: [Replica; REPLICAS],
    rotations: usize,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_second(seconds.cast_signed()).unwrap()
}

fn name(replica: usize) -> String {
    format!("replica-{replica}")
}

impl World {
    /// Nothing is there but the configuration.
    fn bare() -> Self {
        Self {
            now: 1_000_000,
            ahead: 0,
            next: 1,
            secret: None,
            past: Vec::new(),
            configurations: vec![(0, vec![WebhookBundle::default(); 2])],
            views: [0; API_SERVERS],
            writers: Default::default(),
            replicas: Default::default(),
            rotations: 0,
        }
    }

    /// Installed, served and published for long.
    fn installed() -> Self {
        let mut world = Self::bare();
        world.settle();
        world.rotations = 0;
        world
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn mk_der(&mut self) -> CertificateDer<'static> {
        CertificateDer::from(self.next().to_be_bytes().to_vec())
    }

    fn clock(&self) -> Timestamp {
        at(self.now + self.ahead)
    }

    fn valid_for(&self, life: Duration) -> Validity {
        Validity {
            not_before: self.clock() - Duration::from_secs(10),
            not_after: self.clock() + life,
        }
    }

    fn jump(&mut self, left: i64) {
        let Some(Part::Good(authority)) = self.secret.as_ref().map(|it| &it.value.authority) else {
            return;
        };
        let until = authority.validity.not_after.as_second() - left;
        let jump = until - self.clock().as_second();
        self.ahead += u64::try_from(jump).unwrap_or(0);
    }

    fn configuration(&self) -> Versioned<Vec<WebhookBundle>> {
        Versioned {
            version: self.configurations.len() as u64,
            value: self.configurations.last().unwrap().1.clone(),
        }
    }

    fn publish(&mut self, webhooks: Vec<WebhookBundle>) {
        self.configurations.push((self.now, webhooks));
    }

    /// A PUT or POST of the Secret as decided on `read`.
    fn write_secret(&mut self, read: Option<&Versioned<Contents>>, contents: Contents) -> bool {
        if self.secret.as_ref().map(|it| it.version) != read.map(|it| it.version) {
            return false;
        }
        self.put_secret(contents);
        true
    }

    fn put_secret(&mut self, contents: Contents) {
        let version = self.next();
        self.past.push(contents.clone());
        self.secret = Some(Versioned {
            version,
            value: contents,
        });
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Time(seconds) => {
                self.now += seconds;
                // Each learns of a change within the wait, whatever else it does.
                for view in &mut self.views {
                    while self
                        .configurations
                        .get(*view + 1)
                        .is_some_and(|(since, _)| since + LIVES.publish_wait.as_secs() <= self.now)
                    {
                        *view += 1;
                    }
                }
            }
            Event::Jump(left) => self.jump(left),
            Event::ApiServerLearns(server) => {
                self.views[server] = (self.views[server] + 1).min(self.configurations.len() - 1);
            }
            Event::Ask(request) => {
                let read = self.secret.clone();
                if let Some(mut secret) = read.clone() {
                    secret.value.request = Some(request);
                    self.write_secret(read.as_ref(), secret.value);
                }
            }
            Event::WriterReadsConfiguration(writer) => {
                self.writers[writer].configuration = Some(self.configuration());
            }
            Event::WriterReadsSecretAndDecides(writer) => self.decide(writer),
            Event::WriterWrites(writer) => self.write(writer),
            Event::WriterCrashes(writer) => self.writers[writer] = Writer::default(),
            Event::ReplicaReads(replica) => self.replicas[replica].read = self.secret.clone(),
            Event::ReplicaServes(replica) => self.serve(replica),
            Event::ReplicaReports(replica) => self.report(replica),
            Event::ReplicaCrashes(replica) => self.replicas[replica] = Replica::default(),
            Event::ReplicaLeaves(replica) => {
                self.replicas[replica] = Replica::default();
                let read = self.secret.clone();
                if let Some(mut secret) = read.clone() {
                    secret.value.reports.remove(&name(replica));
                    self.write_secret(read.as_ref(), secret.value);
                }
            }
            Event::Break(damage) => self.break_something(damage),
        }
    }

    fn decide(&mut self, writer: usize) {
        let Some(configuration) = self.writers[writer].configuration.clone() else {
            return;
        };
        let (now, clock) = (self.now, self.clock());
        let secret = self.secret.clone();
        let leaf = secret
            .as_ref()
            .map_or(Part::Absent, |secret| secret.value.leaf.clone());
        let Writer {
            published, issued, ..
        } = &mut self.writers[writer];
        let observed = Observed {
            published_for: Duration::from_secs(look(published, configuration.value.clone(), now)),
            issued_for: Duration::from_secs(look(issued, leaf, now)),
            webhooks: Some(configuration.value),
            secret: secret.clone().map(|secret| as_read(secret.value)),
        };
        let step = next_step(&observed, clock, &LIVES);
        self.writers[writer].decided = Some((step, configuration.version, secret));
    }

    fn write(&mut self, writer: usize) {
        let Some((step, configuration, read)) = self.writers[writer].decided.take() else {
            return;
        };
        let mut contents = read.as_ref().map_or_else(
            || Contents {
                authority: Part::Absent,
                retiring: Vec::new(),
                leaf: Part::Absent,
                reports: BTreeMap::new(),
                request: None,
            },
            |read| read.value.clone(),
        );
        match step {
            Step::NewAuthority { retiring, .. } => {
                contents.authority = Part::Good(AuthorityFacts {
                    der: self.mk_der(),
                    validity: self.valid_for(LIVES.authority),
                });
                contents.retiring = retiring;
                contents.request = None;
                self.write_secret(read.as_ref(), contents);
            }
            Step::IssueLeaf { .. } => {
                let Part::Good(authority) = &contents.authority else {
                    panic!("a leaf of no CA");
                };
                let issuer = Some(authority.der.clone());
                let mut validity = self.valid_for(LIVES.leaf);
                validity.not_after = validity.not_after.min(authority.validity.not_after);
                contents.leaf = Part::Good(LeafFacts {
                    serial: self.next().to_string(),
                    issuer,
                    validity,
                    names_fit: true,
                });
                if contents.request == Some(Request::Leaf) {
                    contents.request = None;
                }
                self.rotations += usize::from(self.write_secret(read.as_ref(), contents));
            }
            Step::KeepTrusted { retiring: keep, .. } | Step::Retire { keep } => {
                contents.retiring = keep;
                self.write_secret(read.as_ref(), contents);
            }
            Step::Publish { .. } if configuration == self.configuration().version => {
                let Part::Good(authority) = &contents.authority else {
                    panic!("no CA to publish");
                };
                let authorities = std::iter::once(authority)
                    .chain(&contents.retiring)
                    .cloned()
                    .collect();
                let bundle = WebhookBundle {
                    authorities,
                    broken: false,
                };
                self.publish(vec![bundle; 2]);
            }
            _ => {}
        }
    }

    fn serve(&mut self, replica: usize) {
        let Replica { serving, read } = &mut self.replicas[replica];
        let Some(read) = read else { return };
        if !read.value.reports.contains_key(&name(replica)) {
            return;
        }
        if let Part::Good(leaf) = &read.value.leaf {
            *serving = Some(leaf.clone());
        }
    }

    fn report(&mut self, replica: usize) {
        let Replica { serving, read } = self.replicas[replica].clone();
        let Some(read) = read else { return };
        let known = read.value.reports.contains_key(&name(replica));
        let offered = match &read.value.leaf {
            Part::Good(leaf) if !known => Some(leaf.clone()),
            _ => None,
        };
        if let Some(leaf) = serving.or(offered) {
            let mut contents = read.value.clone();
            let report = Report {
                serial: leaf.serial,
                not_after: leaf.validity.not_after,
            };
            contents.reports.insert(name(replica), report);
            self.write_secret(Some(&read), contents);
        }
    }

    fn break_something(&mut self, damage: Damage) {
        let stranger = AuthorityFacts {
            der: self.mk_der(),
            validity: self.valid_for(LIVES.authority),
        };
        match damage {
            Damage::SecretDeleted => self.secret = None,
            Damage::BundleLost => self.publish(vec![WebhookBundle::default(); 2]),
            Damage::BundleReplaced => {
                let replaced = WebhookBundle {
                    authorities: vec![stranger],
                    broken: true,
                };
                self.publish(vec![WebhookBundle::default(), replaced]);
            }
            Damage::OlderSecretRestored(which) => {
                if let Some(older) = self.past.get(which % self.past.len().max(1)) {
                    self.put_secret(older.clone());
                }
            }
            Damage::AuthorityGarbled | Damage::LeafGarbled | Damage::RetiringLost => {
                let read = self.secret.clone();
                if let Some(mut secret) = read.clone() {
                    let garbled = "is garbled".to_owned();
                    match damage {
                        Damage::LeafGarbled => secret.value.leaf = Part::Broken(garbled),
                        Damage::AuthorityGarbled => secret.value.authority = Part::Broken(garbled),
                        _ => secret.value.retiring.clear(),
                    }
                    self.write_secret(read.as_ref(), secret.value);
                }
            }
        }
    }

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

    /// Everybody does what there is to do, in turn, until nothing is left to do.
    fn settle(&mut self) {
        for event in (0..60).flat_map(|_| round(0, None)) {
            self.happen(&event);
        }
    }

    fn ensure_settled(&self) -> Result<(), TestCaseError> {
        let contents = &self.secret.as_ref().unwrap().value;
        let (Part::Good(authority), Part::Good(leaf)) = (&contents.authority, &contents.leaf) else {
            panic!("no CA or no leaf: {self:#?}");
        };
        prop_assert!(contents.retiring.is_empty(), "{self:#?}");
        prop_assert!(authority.validity.holds(self.clock()), "{self:#?}");
        prop_assert!(leaf.validity.holds(self.clock()), "{self:#?}");
        prop_assert_eq!(contents.request, None);
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

/// A leaf's issuer is looked for among the Secret's CAs only.
fn as_read(mut contents: Contents) -> Contents {
    if let Part::Good(leaf) = &mut contents.leaf {
        let own = match &contents.authority {
            Part::Good(authority) => Some(authority),
            Part::Absent | Part::Broken(_) => None,
        };
        let mut trusted = own.into_iter().chain(&contents.retiring);
        leaf.issuer = leaf
            .issuer
            .take()
            .filter(|issuer| trusted.any(|authority| authority.der == *issuer));
    }
    contents
}

fn look<T: PartialEq>(seen: &mut Option<(T, u64)>, value: T, now: u64) -> u64 {
    match seen {
        Some((seen, since)) if *seen == value => now - *since,
        _ => {
            *seen = Some((value, now));
            0
        }
    }
}

fn writer_turn(writer: usize) -> [Event; 3] {
    [
        Event::WriterReadsConfiguration(writer),
        Event::WriterReadsSecretAndDecides(writer),
        Event::WriterWrites(writer),
    ]
}

fn replica_turn(replica: usize) -> [Event; 3] {
    [
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
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaReads(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaServes(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaReports(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaCrashes(replica))),
        1 => (0..REPLICAS).prop_map(move |replica| one(Event::ReplicaLeaves(replica))),
        1 => (0..API_SERVERS).prop_map(move |server| one(Event::ApiServerLearns(server))),
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
        stuck_after in 1..3_usize,
    ) {
        let mut world = World::installed();
        world.happen(&Event::Ask(Request::Authority));
        for event in (0..rounds_before).flat_map(|_| round(0, None)) {
            world.happen(&event);
            world.ensure_trusted()?;
        }
        let (turn, others) = if stuck_writer {
            (writer_turn(0), round(1, None))
        } else {
            (replica_turn(0), round(0, Some(0)))
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
        for event in (0..60).flat_map(|_| round(0, None)) {
            world.happen(&event);
            world.ensure_trusted()?;
        }
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
                // The one damage that can be made good before anybody is cut off.
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
        for event in (0..60).flat_map(|_| round(0, None)) {
            world.happen(&event);
            had_expired |= world.has_expired();
            if !had_expired {
                world.ensure_trusted()?;
            }
        }
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
