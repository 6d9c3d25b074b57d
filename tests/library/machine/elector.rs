//! A model of an elector: client-go's contract, and the ways to break one clause of it.

use super::api_server::{Client, Instant, Request, Spec, Stored};

/// What a lease is shortened to: more than a release by a duration of one second, which has its own breach.
const SHORT: Option<i32> = Some(2);

/// The clause that an elector breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It waits for its own duration, not for the record's.
    OwnDuration,
    /// It patches without a resource version, whatever is there by then.
    NoResourceVersion,
    /// It does not count its takeovers.
    NoIncrement,
    /// It takes whatever it finds.
    InstantSteal,
    /// It compares renewTime with its own wall clock.
    WallClock,
    /// It clears a live lease, and takes the free one.
    ClearThenTake,
    /// It shortens a live lease, and takes it when it looks expired.
    ShortenThenTake,
    /// It clears the stamps of a live lease, and takes it.
    BlindThenTake,
}

impl Breach {
    pub(super) const ALL: [Self; 8] = [
        Self::OwnDuration,
        Self::NoResourceVersion,
        Self::NoIncrement,
        Self::InstantSteal,
        Self::WallClock,
        Self::ClearThenTake,
        Self::ShortenThenTake,
        Self::BlindThenTake,
    ];
}

/// How an elector lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleaseStyle {
    /// client-go: the holder empty, a duration of one second.
    EmptyHolder,
    /// kubert, the official Java client: holder and times removed.
    Nulls,
    /// fabric8: the holder stays, with a duration of one second.
    Duration,
}

/// What an elector is given.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) duration_seconds: i32,
    /// How far its wall clock is ahead, in milliseconds.
    pub(super) skew: i64,
    pub(super) release_style: ReleaseStyle,
    pub(super) breach: Option<Breach>,
}

/// The lease as an elector last read it.
#[derive(Clone, Debug)]
struct Observation {
    lease: Option<(Spec, u64)>,
    blind: bool,
    /// When it was first seen so, by the elector's monotonic clock.
    since: Instant,
}

/// What a request is to the elector that sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It leads if this succeeds.
    Lead,
    /// It lets go.
    Release,
    /// It prepares the next.
    Clear,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) elector: usize,
    pub(super) request: Request,
    pub(super) purpose: Purpose,
    /// When the elector read its clock, before it sent this.
    at: Instant,
    incarnation: u32,
}

impl Sent {
    /// Whether it lets go of whatever is there by then.
    pub(super) fn is_blind_release(&self) -> bool {
        self.purpose == Purpose::Release && matches!(self.request, Request::Write { version: None, .. })
    }
}

/// One process that wants to lead; the same identity after each restart.
#[derive(Clone, Debug)]
pub(super) struct Elector {
    pub(super) plan: Plan,
    pub(super) client: Client,
    index: usize,
    identity: String,
    alive: bool,
    incarnation: u32,
    observed: Option<Observation>,
    leads_until: Option<Instant>,
}

/// The random suffixes of sibling pods.
const SUFFIXES: [&str; 4] = ["x2x9k", "q8w4m", "b7b7b", "zz5zz"];

impl Elector {
    /// `shared_manager`: all write under one field manager, as with client-go; else each under its identity.
    pub(super) fn new(index: usize, plan: Plan, shared_manager: bool) -> Self {
        let pod = format!("payments-7d4b9c6f5-{}", SUFFIXES[index]);
        let identity = format!("{pod}_{index}");
        let manager = if shared_manager {
            "payments".to_owned()
        } else {
            identity.clone()
        };
        Self {
            plan,
            client: Client {
                pod: Some(pod),
                manager,
            },
            index,
            identity,
            alive: true,
            incarnation: 0,
            observed: None,
            leads_until: None,
        }
    }

    pub(super) fn is_named_by(&self, spec: &Spec) -> bool {
        spec.held_by() == Some(&self.identity)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Until when it believes that it leads; `None` where it does not.
    pub(super) fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| self.alive && *until > now)
    }

    pub(super) fn kill(&mut self) {
        self.alive = false;
        self.leads_until = None;
    }

    pub(super) fn restart(&mut self) {
        if !self.alive {
            self.alive = true;
            self.incarnation += 1;
            self.observed = None;
        }
    }

    /// Reads the lease. The wait begins anew only where the record changed.
    pub(super) fn read(&mut self, lease: Option<&Stored>, now: Instant) {
        let seen = lease.map(|lease| (lease.spec.clone(), lease.version));
        let spec = |lease: &Option<(Spec, u64)>| lease.as_ref().map(|(spec, _)| spec.clone());
        let since = match &self.observed {
            Some(before) if spec(&before.lease) == spec(&seen) => before.since,
            _ => now,
        };
        let blind = lease.is_some_and(|lease| lease.entries.is_empty());
        self.observed = Some(Observation {
            lease: seen,
            blind,
            since,
        });
    }

    /// What it sends now, by what it last read.
    pub(super) fn send(&self, now: Instant) -> Option<Sent> {
        let observed = self.observed.as_ref().filter(|_| self.alive)?;
        let Some((spec, version)) = &observed.lease else {
            return Some(self.sent(Request::Create(self.own(now, 0)), Purpose::Lead, now));
        };
        let holder = spec.held_by();
        let next = if holder == Some(&self.identity) {
            Spec {
                duration_seconds: Some(self.plan.duration_seconds),
                renew_time: Some(now + self.plan.skew),
                acquire_time: spec.acquire_time.or(Some(now + self.plan.skew)),
                ..spec.clone()
            }
        } else {
            if holder.is_some() && self.takes_for_valid(observed, spec, now) {
                let clear = match self.plan.breach {
                    Some(Breach::ClearThenTake) => self.write(self.let_go(spec, now), *version),
                    Some(Breach::ShortenThenTake) if spec.duration_seconds > SHORT => {
                        let shortened = Spec {
                            duration_seconds: SHORT,
                            ..spec.clone()
                        };
                        self.write(shortened, *version)
                    }
                    Some(Breach::BlindThenTake) if !observed.blind => Request::ClearStamps,
                    _ => return None,
                };
                return Some(self.sent(clear, Purpose::Clear, now));
            }
            let counted = i32::from(self.plan.breach != Some(Breach::NoIncrement));
            self.own(now, spec.transitions.unwrap_or(0) + counted)
        };
        Some(self.sent(self.write(next, *version), Purpose::Lead, now))
    }

    /// Lets go of what it holds, and ends.
    pub(super) fn release(&mut self, now: Instant) -> Option<Sent> {
        let leads = self.leads_until(now).is_some();
        let (spec, version) = self.observed.as_ref()?.lease.as_ref().filter(|_| leads)?;
        if spec.held_by() != Some(&self.identity) {
            return None;
        }
        let sent = self.sent(
            self.write(self.let_go(spec, now), *version),
            Purpose::Release,
            now,
        );
        self.kill();
        Some(sent)
    }

    /// Hears that what it sent was stored.
    pub(super) fn hear(&mut self, sent: &Sent, spec: &Spec, version: u64, now: Instant) {
        if !self.alive || sent.incarnation != self.incarnation {
            return;
        }
        self.observed = Some(Observation {
            lease: Some((spec.clone(), version)),
            blind: false,
            since: now,
        });
        if sent.purpose == Purpose::Lead {
            let until = sent.at + i64::from(self.plan.duration_seconds) * 1000;
            self.leads_until = self.leads_until.max(Some(until));
        }
    }

    /// Whether it waits for the present holder.
    fn takes_for_valid(&self, observed: &Observation, spec: &Spec, now: Instant) -> bool {
        let own = i64::from(self.plan.duration_seconds) * 1000;
        let Some(duration) = spec.duration() else {
            return false;
        };
        match self.plan.breach {
            Some(Breach::InstantSteal) => false,
            Some(Breach::OwnDuration) => observed.since + own > now,
            Some(Breach::WallClock) => spec
                .renew_time
                .is_some_and(|renewed| renewed + duration > now + self.plan.skew),
            Some(Breach::BlindThenTake) if observed.blind => false,
            _ => observed.since + duration > now,
        }
    }

    fn own(&self, now: Instant, transitions: i32) -> Spec {
        Spec {
            holder: Some(self.identity.clone()),
            duration_seconds: Some(self.plan.duration_seconds),
            acquire_time: Some(now + self.plan.skew),
            renew_time: Some(now + self.plan.skew),
            transitions: Some(transitions),
            strategy: None,
        }
    }

    fn let_go(&self, spec: &Spec, now: Instant) -> Spec {
        let wall = Some(now + self.plan.skew);
        let (spec, released) = (spec.clone(), Some(1));
        match self.plan.release_style {
            ReleaseStyle::EmptyHolder => Spec {
                holder: Some(String::new()),
                duration_seconds: released,
                acquire_time: wall,
                renew_time: wall,
                ..spec
            },
            ReleaseStyle::Nulls => Spec {
                holder: None,
                acquire_time: None,
                renew_time: None,
                ..spec
            },
            ReleaseStyle::Duration => Spec {
                duration_seconds: released,
                renew_time: wall,
                ..spec
            },
        }
    }

    fn write(&self, spec: Spec, version: u64) -> Request {
        let conditional = self.plan.breach != Some(Breach::NoResourceVersion);
        Request::Write {
            spec,
            version: conditional.then_some(version),
        }
    }

    fn sent(&self, request: Request, purpose: Purpose, at: Instant) -> Sent {
        Sent {
            elector: self.index,
            request,
            purpose,
            at,
            incarnation: self.incarnation,
        }
    }
}
