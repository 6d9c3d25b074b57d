//! Lets a scenario happen, and keeps account of it.

use leasehold::{
    lease::{Change, Write},
    policy::{Action, Policy},
    verdict::Verdict,
};

use super::{
    api_server::{ApiServers, Instant, Request, Spec, timestamp},
    elector::{Breach, Elector, Sent},
    scenario::{Scenario, Step},
};

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
    pub(super) by_the_holder: bool,
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
            by_the_holder: old.is_some_and(|old| self.electors[elector].is_named_by(&old.spec)),
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
