//! Worlds, what happens in them step by step, and what came of it.

use leasehold::{
    lease::{Change, Write},
    policy::{Action, Policy},
    verdict::Verdict,
};
use proptest::prelude::*;

use super::{
    api_server::{ApiServers, Instant, Request, Spec, timestamp},
    elector::{Breach, Elector, Plan, ReleaseStyle, Sent},
};

const DAY: i64 = 86_400_000;

/// Thousandths of something that the scenario knows: the base duration, the slack.
type Share = i64;

/// One thing that happens. Electors, servers and requests on their way are counted modulo what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Time passes: so much of the base duration, and so many milliseconds.
    Pass(Share, i64),
    /// An elector reads the lease, and writes what it makes of that.
    Poll { elector: usize, server: usize },
    /// It reads the lease.
    Read(usize),
    /// It sends what it makes of what it last read.
    Send(usize),
    /// A request arrives; its answer may be lost.
    Arrive { which: usize, server: usize, lost: bool },
    /// An elector ends without a word. What it sent may still arrive.
    Kill(usize),
    /// It starts again, with the same identity.
    Restart(usize),
    /// It lets go and ends. The request is on its way, or arrives at once.
    Release {
        elector: usize,
        server: usize,
        at_once: bool,
    },
    /// It labels the lease, under its field manager.
    Label { elector: usize, server: usize },
    /// A server's clock is set.
    SetServer { server: usize, share: Share },
    /// An elector's wall clock is set.
    SetClient { elector: usize, skew: i64 },
}

/// A world before anything happens, and what will.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// The policy's `clockSlack`; clocks of API servers differ by no more.
    pub(super) slack_seconds: i64,
    /// Whether the lease exists already, with an empty spec, and so without stamps for ever.
    pub(super) starts_empty: bool,
    /// How far Leasehold's clock is ahead, in thousandths of how far it may be.
    our_clock: Share,
    shared_manager: bool,
    base_seconds: i32,
    servers: Vec<Share>,
    plans: Vec<Plan>,
    steps: Vec<Step>,
}

/// The policy's `maxSkew`, in milliseconds: how far Leasehold's clock may be from any API server's.
pub(super) const MAX_SKEW: i64 = 5000;

impl Scenario {
    /// The default policy, but for the slack and the rules that are off.
    fn policy(&self, off: &[&str]) -> Policy {
        let rules: Vec<_> = off
            .iter()
            .map(|rule| format!("{rule}: {{action: off}}"))
            .collect();
        let document = format!(
            "clockSlack: {}s\nrules: {{{}}}",
            self.slack_seconds,
            rules.join(", ")
        );
        Policy::parse(&document).unwrap()
    }

    /// What is early by so many milliseconds is early by the stamps too, wherever in its second each was taken and by
    /// whichever server: the rule allows one slack, the two clocks differ by another, and one stamp is floored.
    pub(super) fn provable(&self) -> i64 {
        (2 * self.slack_seconds + 1) * 1000
    }

    /// The same where the write carries no stamp, and Leasehold's clock stands in.
    pub(super) fn provable_by_our_clock(&self) -> i64 {
        2 * MAX_SKEW + 1000
    }

    fn server_clock(&self, share: Share) -> i64 {
        self.slack_seconds * share
    }

    /// Within `maxSkew` of every clock that a server may have.
    fn our_clock(&self) -> i64 {
        let earliest = self.slack_seconds * 1000 - MAX_SKEW;
        earliest + (MAX_SKEW - earliest) * self.our_clock / 1000
    }
}

prop_compose! {
    fn plan(base_seconds: i32, breach: Option<Breach>, may_keep: bool)(
        own in prop_oneof![Just(base_seconds), 5..=30_i32, 5..=3600_i32],
        skew in prop_oneof![Just(0), -3000..=3000_i64, -DAY..=DAY],
        release_style in prop_oneof![
            Just(ReleaseStyle::EmptyHolder), Just(ReleaseStyle::Nulls), Just(ReleaseStyle::Duration),
        ],
        keeps in any::<bool>(),
    ) -> Plan {
        // Two spellings of a release leave no count behind to go by: not for who does not count.
        let release_style = match breach {
            Some(Breach::NoIncrement) => ReleaseStyle::EmptyHolder,
            _ => release_style,
        };
        Plan { duration_seconds: own, skew, release_style, breach: breach.filter(|_| !(keeps && may_keep)) }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (elector, server) = (0..4_usize, 0..3_usize);
    prop_oneof![
        5 => (0..150_i64, 0..2000_i64).prop_map(|(share, more)| Step::Pass(share, more)),
        3 => (0..1200_i64, 0..2000_i64).prop_map(|(share, more)| Step::Pass(share, more)),
        12 => (elector.clone(), server.clone()).prop_map(|(elector, server)| Step::Poll { elector, server }),
        3 => elector.clone().prop_map(Step::Read),
        4 => elector.clone().prop_map(Step::Send),
        4 => (0..8_usize, server.clone(), prop::bool::weighted(0.2))
            .prop_map(|(which, server, lost)| Step::Arrive { which, server, lost }),
        1 => elector.clone().prop_map(Step::Kill),
        3 => elector.clone().prop_map(Step::Restart),
        2 => (elector.clone(), server.clone(), any::<bool>())
            .prop_map(|(elector, server, at_once)| Step::Release { elector, server, at_once }),
        1 => (elector.clone(), server.clone()).prop_map(|(elector, server)| Step::Label { elector, server }),
        1 => (server, 0..=1000_i64).prop_map(|(server, share)| Step::SetServer { server, share }),
        1 => (elector, -DAY..=DAY).prop_map(|(elector, skew)| Step::SetClient { elector, skew }),
    ]
}

/// Any world in which all electors keep the contract; or in which the first breaks it, and others may.
pub(super) fn scenario(breach: Option<Breach>) -> impl Strategy<Value = Scenario> {
    prop_oneof![3 => 5..=30_i32, 1 => 5..=3600_i32].prop_flat_map(move |base_seconds| {
        let plans = (
            plan(base_seconds, breach, false),
            proptest::collection::vec(plan(base_seconds, breach, true), 1..=3),
        );
        let world = (0..=2_i64, any::<bool>(), 0..=1000_i64, any::<bool>());
        let servers = proptest::collection::vec(0..=1000_i64, 1..=3);
        let steps = proptest::collection::vec(step(), 20..160);
        (world, servers, plans, steps).prop_map(move |(world, servers, (first, others), steps)| {
            let (slack_seconds, starts_empty, our_clock, shared_manager) = world;
            Scenario {
                slack_seconds,
                // A lease without stamps proves nothing.
                starts_empty: starts_empty && breach.is_none(),
                our_clock,
                shared_manager,
                base_seconds,
                servers,
                plans: [vec![first], others].concat(),
                steps,
            }
        })
    })
}

/// One write that reached an API server without a conflict, and what the policy says of it, asked or not.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// The clause that its elector breaks.
    pub(super) breach: Option<Breach>,
    pub(super) write: Write<'static>,
    pub(super) verdict: Verdict,
    /// For how many milliseconds the old record was valid still, in truth.
    pub(super) valid_for: Option<i64>,
    /// The same, were the last touch of its stamp by the holder's manager a renewal.
    pub(super) stamp_valid_for: Option<i64>,
    /// Whether it was stored.
    pub(super) stored: bool,
}

impl Judged {
    pub(super) fn is_denied_by(&self, rule: &str) -> bool {
        self.verdict
            .taken(Action::Enforce)
            .any(|violation| violation.rule.as_str() == rule)
    }
}

/// What came of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) writes: Vec<Judged>,
    /// For how many milliseconds a new leader had another beside it, were each to lead as long as it believes.
    pub(super) overlaps: Vec<i64>,
    /// The holder and leaseTransitions of each term.
    pub(super) terms: Vec<(String, Option<i32>)>,
    pub(super) conflicts: usize,
    pub(super) restarts: usize,
}

impl History {
    /// Two terms of different holders under one number.
    pub(super) fn has_a_number_twice(&self) -> bool {
        self.terms
            .windows(2)
            .any(|pair| pair[0].0 != pair[1].0 && pair[0].1 == pair[1].1)
    }

    pub(super) fn longest_overlap(&self) -> i64 {
        self.overlaps.iter().copied().max().unwrap_or(0)
    }

    pub(super) fn stored(&self, change: Change) -> usize {
        self.writes
            .iter()
            .filter(|judged| judged.stored && judged.write.change == change)
            .count()
    }
}

/// Fewer cases for each of many properties; `PROPTEST_CASES` still scales them.
pub(super) fn a_quarter_of_the_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(4),
        ..usual
    }
}

/// How the guard is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    Off,
    Lean,
    Full,
    /// Full, but for these rules.
    Without(&'static [&'static str]),
}

struct World<'a> {
    scenario: &'a Scenario,
    guard: Guard,
    policy: Policy,
    now: Instant,
    servers: ApiServers,
    electors: Vec<Elector>,
    on_their_way: Vec<Sent>,
    history: History,
}

/// Lets a scenario happen.
pub(super) fn run(scenario: &Scenario, guard: Guard) -> History {
    let clocks = scenario
        .servers
        .iter()
        .map(|share| scenario.server_clock(*share))
        .collect();
    let plans = scenario.plans.iter().cloned().enumerate();
    let mut world = World {
        scenario,
        guard,
        policy: scenario.policy(match guard {
            Guard::Without(rules) => rules,
            Guard::Off | Guard::Lean | Guard::Full => &[],
        }),
        now: 0,
        servers: ApiServers::new(clocks),
        electors: plans
            .map(|(index, plan)| Elector::new(index, plan, scenario.shared_manager))
            .collect(),
        on_their_way: Vec::new(),
        history: History::default(),
    };
    if scenario.starts_empty {
        world.submit(0, 0, &Request::Create(Spec::default()));
        world.now += 1;
    }
    for step in &scenario.steps {
        world.take(step);
    }
    world.history
}

impl World<'_> {
    fn take(&mut self, step: &Step) {
        let index = |elector: &usize| elector % self.scenario.plans.len();
        match step {
            Step::Pass(share, more) => self.now += i64::from(self.scenario.base_seconds) * share + more,
            Step::Poll { elector, server } => {
                let elector = index(elector);
                self.electors[elector].read(self.servers.lease.as_ref(), self.now);
                if let Some(sent) = self.electors[elector].send(self.now) {
                    self.arrive(&sent, *server, false);
                }
            }
            Step::Read(elector) => {
                let elector = index(elector);
                self.electors[elector].read(self.servers.lease.as_ref(), self.now);
            }
            Step::Send(elector) => self
                .on_their_way
                .extend(self.electors[index(elector)].send(self.now)),
            Step::Arrive { which, server, lost } => {
                if !self.on_their_way.is_empty() {
                    let sent = self.on_their_way.remove(which % self.on_their_way.len());
                    self.arrive(&sent, *server, *lost);
                }
            }
            Step::Kill(elector) => {
                let elector = index(elector);
                self.electors[elector].kill();
            }
            Step::Restart(elector) => {
                let elector = index(elector);
                // What it let go unconditionally before, it would let go now: by the same pod, so nobody could tell.
                self.on_their_way
                    .retain(|sent| sent.elector != elector || !sent.is_blind_release());
                self.history.restarts += usize::from(!self.electors[elector].is_alive());
                self.electors[elector].restart();
            }
            Step::Release {
                elector,
                server,
                at_once,
            } => {
                let sent = self.electors[index(elector)].release(self.now);
                match sent {
                    Some(sent) if *at_once => self.arrive(&sent, *server, false),
                    sent => self.on_their_way.extend(sent),
                }
            }
            Step::Label { elector, server } => {
                let elector = index(elector);
                if self.electors[elector].is_alive() {
                    self.submit(elector, *server, &Request::Label(self.now.to_string()));
                }
            }
            Step::SetServer { server, share } => {
                let server = server % self.servers.clocks.len();
                self.servers.clocks[server] = self.scenario.server_clock(*share);
            }
            Step::SetClient { elector, skew } => {
                let elector = index(elector);
                self.electors[elector].plan.skew = *skew;
            }
        }
    }

    fn arrive(&mut self, sent: &Sent, server: usize, lost: bool) {
        let Some((spec, version)) = self.submit(sent.elector, server, &sent.request) else {
            return;
        };
        if !lost {
            let led = self.electors[sent.elector].leads_until(self.now).is_some();
            self.electors[sent.elector].hear(sent, &spec, version, self.now);
            if !led {
                self.note_overlaps(sent.elector);
            }
        }
    }

    /// Somebody begins to lead: who else does?
    fn note_overlaps(&mut self, leader: usize) {
        let Some(until) = self.electors[leader].leads_until(self.now) else {
            return;
        };
        let others = self
            .electors
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != leader);
        let others = others.filter_map(|(_, other)| other.leads_until(self.now));
        self.history
            .overlaps
            .extend(others.map(|other| other.min(until) - self.now));
    }

    /// Puts a request through one API server and its admission; what was stored, under which resource version.
    fn submit(&mut self, elector: usize, server: usize, request: &Request) -> Option<(Spec, u64)> {
        let client = &self.electors[elector].client;
        let Some(proposal) = self.servers.propose(server, client, request, self.now) else {
            self.history.conflicts += 1;
            return None;
        };
        let write = proposal.write(timestamp(self.now + self.scenario.our_clock()));
        let verdict = self.policy.decide(&write);
        let asked = match self.guard {
            Guard::Off => false,
            Guard::Lean => proposal.is_sent(),
            Guard::Full | Guard::Without(_) => true,
        };
        let stored = !(asked && verdict.denial().is_some());
        let old = proposal.old.as_ref().filter(|old| old.spec.held_by().is_some());
        let duration = old.and_then(|old| old.spec.duration());
        self.history.writes.push(Judged {
            breach: self.electors[elector].plan.breach,
            valid_for: old.and_then(|old| old.valid_for(self.now)),
            stamp_valid_for: old.and_then(|old| Some(old.stamp_moved()? + duration? - self.now)),
            stored,
            write,
            verdict,
        });
        if !stored {
            return None;
        }
        let spec = proposal
            .new
            .as_ref()
            .map(|new| new.spec.clone())
            .unwrap_or_default();
        if let Some(holder) = spec.held_by()
            && self
                .history
                .terms
                .last()
                .is_none_or(|(before, _)| before != holder)
        {
            self.history.terms.push((holder.to_owned(), spec.transitions));
        }
        let version = self.servers.store(proposal);
        Some((spec, version))
    }
}
