//! Worlds of servers and electors, and what happens in them, step by step.

use leasehold::policy::Policy;
use proptest::prelude::*;

use super::elector::{Breach, Plan, ReleaseStyle};

const DAY: i64 = 86_400_000;

/// Thousandths of something that the scenario knows: the base duration, the slack.
pub(super) type Share = i64;

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
    pub(super) our_clock: Share,
    pub(super) shared_manager: bool,
    pub(super) base_seconds: i32,
    pub(super) servers: Vec<Share>,
    pub(super) plans: Vec<Plan>,
    pub(super) steps: Vec<Step>,
}

/// The policy's `maxSkew`, in milliseconds: how far Leasehold's clock may be from any API server's.
const MAX_SKEW: i64 = 5000;

impl Scenario {
    /// The default policy, but for the slack and the rules that are off.
    pub(super) fn policy(&self, off: &[&str]) -> Policy {
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

    pub(super) fn server_clock(&self, share: Share) -> i64 {
        self.slack_seconds * share
    }

    /// Within `maxSkew` of every clock that a server may have.
    pub(super) fn our_clock(&self) -> i64 {
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

/// Fewer cases for each of many properties; `PROPTEST_CASES` still scales them.
pub(super) fn a_quarter_of_the_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(4),
        ..usual
    }
}
