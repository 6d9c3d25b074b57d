//! A model of the API server, as far as a lease can tell: resource versions, and the stamps in `managedFields`.
//!
//! Several servers share one store; each stamps by its own clock. How stamps move is what was observed on real API
//! servers (`tests/apiserver/stamps` asserts it).

use std::collections::BTreeSet;

use jiff::Timestamp;
use leasehold::lease::{LeaseName, Record, Stamp, Stamps, State, Write, Writer};

/// Milliseconds since the model began, by a clock that nobody has: true time.
pub(super) type Instant = i64;

/// An arbitrary beginning, in milliseconds since 1970.
const BEGINNING: i64 = 1_795_000_000_000;

pub(super) fn timestamp(at: Instant) -> Timestamp {
    Timestamp::from_millisecond(BEGINNING + at).unwrap()
}

/// `metav1.Time`: whole seconds, rounded down.
pub(super) fn whole_second(at: Instant) -> Timestamp {
    Timestamp::from_second((BEGINNING + at).div_euclid(1000)).unwrap()
}

/// As whom every client of the model is known.
pub(super) const USER: &str = "system:serviceaccount:shop:payments";
pub(super) const GROUPS: [&str; 2] = ["system:serviceaccounts", "system:authenticated"];

/// `LeaseSpec`, with the two spellings of nobody apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) holder: Option<String>,
    pub(super) duration_seconds: Option<i32>,
    pub(super) acquire_time: Option<Instant>,
    pub(super) renew_time: Option<Instant>,
    pub(super) transitions: Option<i32>,
    pub(super) strategy: Option<String>,
}

impl Spec {
    /// Who holds the lease; `None` when it is free.
    pub(super) fn held_by(&self) -> Option<&str> {
        self.holder.as_deref().filter(|holder| !holder.is_empty())
    }

    pub(super) fn duration(&self) -> Option<i64> {
        self.duration_seconds.map(|seconds| i64::from(seconds) * 1000)
    }

    fn record(&self) -> Record<'static> {
        Record {
            holder: self.held_by().map(|holder| holder.to_owned().into()),
            duration_seconds: self.duration_seconds,
            acquire_time: self.acquire_time.map(timestamp),
            renew_time: self.renew_time.map(timestamp),
            transitions: self.transitions,
            strategy: self.strategy.clone().map(Into::into),
            ..Record::default()
        }
    }
}

/// The fields that `managedFields` keeps account of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Holder,
    Duration,
    AcquireTime,
    RenewTime,
    Transitions,
    Strategy,
    Label,
}

impl Field {
    const ALL: [Self; 7] = [
        Self::Holder,
        Self::Duration,
        Self::AcquireTime,
        Self::RenewTime,
        Self::Transitions,
        Self::Strategy,
        Self::Label,
    ];
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) time: Timestamp,
    pub(super) fields: BTreeSet<Field>,
    /// When the stamp was moved in truth.
    moved: Instant,
}

/// The lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) spec: Spec,
    pub(super) label: Option<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) created: Timestamp,
    pub(super) uid: String,
    /// 0 until it is stored.
    pub(super) version: u64,
    /// When renewTime was last written, in truth.
    pub(super) renewed: Option<Instant>,
}

impl Stored {
    fn value(&self, field: Field) -> Option<String> {
        let spec = &self.spec;
        match field {
            Field::Holder => spec.holder.clone(),
            Field::Duration => spec.duration_seconds.map(|seconds| seconds.to_string()),
            Field::AcquireTime => spec.acquire_time.map(|time| time.to_string()),
            Field::RenewTime => spec.renew_time.map(|time| time.to_string()),
            Field::Transitions => spec.transitions.map(|count| count.to_string()),
            Field::Strategy => spec.strategy.clone(),
            Field::Label => self.label.clone(),
        }
    }

    /// When the stamp of renewTime was last moved, in truth: by a renewal, or by a label of the same manager.
    pub(super) fn stamp_moved(&self) -> Option<Instant> {
        let owners = self
            .entries
            .iter()
            .filter(|entry| entry.fields.contains(&Field::RenewTime));
        owners.map(|entry| entry.moved).max()
    }

    /// For how many milliseconds the record is valid still, in truth. `None` where it is free.
    pub(super) fn valid_for(&self, now: Instant) -> Option<i64> {
        self.spec.held_by()?;
        Some(self.renewed? + self.spec.duration()? - now)
    }

    fn state(&self) -> State<'static> {
        let latest = |field| {
            let owners = self.entries.iter().filter(|entry| entry.fields.contains(&field));
            owners.fold(None, |latest: Option<&Entry>, entry| match latest {
                Some(latest) if latest.time >= entry.time => Some(latest),
                _ => Some(entry),
            })
        };
        let stamp = |field| latest(field).map_or(Stamp::Absent, |entry| Stamp::At(entry.time));
        State {
            record: self.spec.record(),
            stamps: Stamps {
                holder: stamp(Field::Holder),
                renew_time: stamp(Field::RenewTime),
                acquire_time: stamp(Field::AcquireTime),
                created: Some(self.created),
            },
            tracked: !self.entries.is_empty(),
            uid: Some(self.uid.clone().into()),
            resource_version: Some(self.version).filter(|version| *version > 0),
            holder_manager: latest(Field::Holder).map(|entry| entry.manager.clone().into()),
            labels: self
                .label
                .iter()
                .map(|label| ("app".into(), label.clone().into()))
                .collect(),
            ..State::default()
        }
    }
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) pod: Option<String>,
    pub(super) manager: String,
}

/// What is asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Create(Spec),
    /// A PUT or a patch of the whole spec; unconditional without a resource version.
    Write {
        spec: Spec,
        version: Option<u64>,
    },
    /// A patch of a label.
    Label(String),
    /// A PUT with `managedFields: [{}]`.
    ClearStamps,
    /// A PUT that sends all stamps so many seconds off, and changes a label.
    ForgeStamps {
        seconds: i64,
        label: String,
    },
    Delete,
}

/// A request applied to the present object: what admission sees.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) client: Client,
    pub(super) old: Option<Stored>,
    pub(super) new: Option<Stored>,
}

impl Proposal {
    pub(super) fn write(&self, reviewed: Timestamp) -> Write<'static> {
        let lease = LeaseName {
            namespace: "shop".into(),
            name: "payments".into(),
            ..LeaseName::default()
        };
        let writer = Writer {
            user: USER.into(),
            groups: GROUPS.map(Into::into).into(),
            pod: self.client.pod.clone().map(Into::into),
            // DeleteOptions name none.
            field_manager: self.new.as_ref().map(|_| self.client.manager.clone().into()),
        };
        let [old, new] = [&self.old, &self.new].map(|stored| stored.as_ref().map(Stored::state));
        Write::new(lease, writer, old, new, reviewed)
    }

    /// The lean matchCondition: whether the webhook is asked at all.
    pub(super) fn is_sent(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else {
            return true;
        };
        let renewed = Spec {
            renew_time: new.spec.renew_time,
            ..old.spec.clone()
        };
        let owned = new
            .entries
            .iter()
            .any(|entry| entry.fields.contains(&Field::RenewTime));
        old.spec.renew_time == new.spec.renew_time || renewed != new.spec || !owned
    }
}

/// One lease, and the API servers that write it.
#[derive(Clone, Debug)]
pub(super) struct ApiServers {
    /// How far each server's clock is ahead, in milliseconds.
    pub(super) clocks: Vec<i64>,
    pub(super) lease: Option<Stored>,
    versions: u64,
}

impl ApiServers {
    pub(super) fn new(clocks: Vec<i64>) -> Self {
        Self {
            clocks,
            lease: None,
            versions: 0,
        }
    }

    /// Applies a request to the present object. `None` where the server refuses it by itself (a conflict, no such
    /// object, an object that exists) or has nothing to write.
    pub(super) fn propose(
        &self,
        server: usize,
        client: &Client,
        request: &Request,
        now: Instant,
    ) -> Option<Proposal> {
        let second = whole_second(now + self.clocks[server % self.clocks.len()]);
        let old = self.lease.clone();
        let new = match (request, &old) {
            (Request::Create(spec), None) => Some(Stored {
                spec: spec.clone(),
                label: None,
                entries: Vec::new(),
                created: second,
                uid: format!("uid-{}", self.versions + 1),
                version: 0,
                renewed: None,
            }),
            (Request::Write { spec, version }, Some(old)) => {
                if version.is_some_and(|version| version != old.version) {
                    return None;
                }
                Some(Stored {
                    spec: spec.clone(),
                    ..old.clone()
                })
            }
            (Request::Label(label) | Request::ForgeStamps { label, .. }, Some(old)) => {
                let mut new = Stored {
                    label: Some(label.clone()),
                    ..old.clone()
                };
                if let Request::ForgeStamps { seconds, .. } = request {
                    for entry in &mut new.entries {
                        entry.time = Timestamp::from_second(entry.time.as_second() + seconds).unwrap();
                    }
                }
                Some(new)
            }
            (Request::ClearStamps, Some(old)) if !old.entries.is_empty() => {
                let new = Some(Stored {
                    entries: Vec::new(),
                    ..old.clone()
                });
                return Some(Proposal {
                    client: client.clone(),
                    old: self.lease.clone(),
                    new,
                });
            }
            (Request::Delete, Some(_)) => None,
            _ => return None,
        };
        let new = match new {
            None => None,
            Some(new) => Some(stamp(old.as_ref(), new, &client.manager, second, now)?),
        };
        Some(Proposal {
            client: client.clone(),
            old,
            new,
        })
    }

    /// Stores what admission let pass; the new resource version.
    pub(super) fn store(&mut self, proposal: Proposal) -> u64 {
        self.versions += 1;
        self.lease = proposal.new.map(|new| Stored {
            version: self.versions,
            ..new
        });
        self.versions
    }
}

/// Gives the writer what it changed, with the second of this write; `None` where it changed nothing.
fn stamp(
    old: Option<&Stored>,
    mut new: Stored,
    manager: &str,
    second: Timestamp,
    now: Instant,
) -> Option<Stored> {
    let before = |field| old.and_then(|old| old.value(field));
    let (mut changed, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for field in Field::ALL {
        match (before(field), new.value(field)) {
            (Some(_), None) => removed.insert(field),
            (before, after) if before != after => changed.insert(field),
            _ => false,
        };
    }
    if old.is_some() && changed.is_empty() && removed.is_empty() {
        return None;
    }
    if changed.contains(&Field::RenewTime) {
        new.renewed = Some(now);
    }
    if old.is_some_and(|old| old.entries.is_empty()) {
        // Without stamps once, without stamps for ever.
        return Some(new);
    }
    for entry in &mut new.entries {
        entry
            .fields
            .retain(|field| !removed.contains(field) && !changed.contains(field));
    }
    if !changed.is_empty() {
        match new.entries.iter_mut().find(|entry| entry.manager == manager) {
            Some(entry) => {
                entry.fields.append(&mut changed);
                (entry.time, entry.moved) = (second, now);
            }
            None => new.entries.push(Entry {
                manager: manager.to_owned(),
                time: second,
                fields: changed,
                moved: now,
            }),
        }
    }
    new.entries.retain(|entry| !entry.fields.is_empty());
    Some(new)
}
