//! What the walks walk through: the Secret, the configuration, and whoever reads and writes them, one event at a time.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;

use super::super::*;

pub(super) const WRITERS: usize = 2;
pub(super) const REPLICAS: usize = 3;
pub(super) const API_SERVERS: usize = 2;

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
pub(super) enum Event {
    Time(u64),
    /// The clock jumps to so many seconds before the CA's end, or after it where that is negative; never back.
    Jump(i64),
    Ask(Request),
    WriterReadsConfiguration(usize),
    WriterReadsSecretAndDecides(usize),
    WriterWrites(usize),
    WriterCrashes(usize),
    ReplicaReadsConfiguration(usize),
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
pub(super) enum Damage {
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
pub(super) struct Versioned<T> {
    version: u64,
    pub(super) value: T,
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
pub(super) struct Replica {
    pub(super) serving: Option<LeafFacts>,
    /// The same with the issuer that the replica knows of.
    known_serving: Option<LeafFacts>,
    /// The configuration's version.
    seen: Option<(u64, u64)>,
    published: Option<Published>,
    read: Option<Versioned<Contents>>,
}

#[derive(Debug)]
pub(super) struct World {
    /// Steady.
    now: u64,
    /// How far the clock is ahead of it.
    ahead: u64,
    next: u64,
    pub(super) secret: Option<Versioned<Contents>>,
    /// What the Secret was.
    past: Vec<Contents>,
    /// What the configuration was, with the time at which it became so.
    pub(super) configurations: Vec<(u64, Vec<WebhookBundle>)>,
    /// Which of them each API server uses.
    pub(super) views: [usize; API_SERVERS],
    writers: [Writer; WRITERS],
    pub(super) replicas: [Replica; REPLICAS],
    pub(super) rotations: usize,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_second(seconds.cast_signed()).unwrap()
}

fn name(replica: usize) -> String {
    format!("replica-{replica}")
}

impl World {
    /// Nothing is there but the configuration.
    pub(super) fn bare() -> Self {
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
    pub(super) fn installed() -> Self {
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

    pub(super) fn clock(&self) -> Timestamp {
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

    pub(super) fn configuration(&self) -> Versioned<Vec<WebhookBundle>> {
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

    pub(super) fn happen(&mut self, event: &Event) {
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
            Event::ReplicaReadsConfiguration(replica) => {
                let (configuration, now) = (self.configuration(), self.now);
                let Replica { seen, published, .. } = &mut self.replicas[replica];
                *published = Some(Published {
                    seen_for: Duration::from_secs(look(seen, configuration.version, now)),
                    webhooks: Some(configuration.value),
                });
            }
            Event::ReplicaReads(replica) => self.replicas[replica].read = self.secret.clone(),
            Event::ReplicaServes(replica) => self.serve(replica),
            Event::ReplicaReports(replica) => {
                self.report(replica);
                // Each turn reads anew.
                self.replicas[replica].published = None;
            }
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
        let clock = self.clock();
        let Replica {
            serving,
            known_serving,
            published,
            read,
            ..
        } = &mut self.replicas[replica];
        let Some(read) = read else { return };
        if !read.value.reports.contains_key(&name(replica)) {
            return;
        }
        let (Part::Good(leaf), Part::Good(known)) = (&read.value.leaf, as_read(read.value.clone()).leaf)
        else {
            return;
        };
        if known_serving
            .as_ref()
            .is_none_or(|serving| may_replace(serving, &known, published.as_ref(), clock, &LIVES))
        {
            *serving = Some(leaf.clone());
            *known_serving = Some(known);
        }
    }

    fn report(&mut self, replica: usize) {
        let Replica { serving, read, .. } = self.replicas[replica].clone();
        let Some(read) = read else { return };
        let known = read.value.reports.contains_key(&name(replica));
        let offered = match &read.value.leaf {
            Part::Good(leaf) if !known => Some(leaf.clone()),
            _ => None,
        };
        if let Some(leaf) = serving.or(offered) {
            let mut contents = read.value.clone();
            contents.reports.insert(name(replica), Report::from(&leaf));
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
