//! What is remembered of one lease, and how an object seen confirms an attempt.

use jiff::Timestamp;

use super::Hasher;
use crate::lease::{
    Change, History, MOST_HOLDER_CHANGES, Ownership, REMEMBERED_SECONDS, Recreation, SharedIdentity, State,
    Write,
};

/// How many bytes of a pod's name or an identity are kept for messages: a host name (63), `_` and a UUID (36) fit.
/// What is longer is still told apart by its hash.
const LONGEST_NAME: usize = 128;

/// How many attempts of one kind wait to be confirmed: as many candidates as commonly race.
const PENDING: usize = 4;

/// How many pods are remembered as writers under one identity: with fewer, as many pods that take turns in a
/// fixed order would never be seen to come back.
const AUTHORS: usize = 4;

/// What is remembered of one lease. Names are kept as hashes where nobody reads them.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The Unix second of the last review that showed something newer.
    seen: i64,
    /// The resourceVersion of the last object seen.
    version: u64,
    /// Who held the last object seen.
    holder: Holder,
    /// Who last tried to become the holder, and at which Unix second.
    candidate: Option<(u64, i64)>,
    /// The Unix seconds of the confirmed changes of holder, oldest first.
    changes: Vec<i64>,
    deletion: Option<Box<Deletion>>,
    authors: Option<Box<Authors>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Unknown,
    Nobody,
    Somebody(u64),
}

/// A name: exact by its hash, and cut to what is worth reading.
#[derive(Clone, Debug)]
struct Name {
    hash: u64,
    text: Box<str>,
}

/// An attempt to delete the lease while somebody held it, and the attempts to create it since.
#[derive(Debug)]
struct Deletion {
    uid: u64,
    version: u64,
    holder: Name,
    renewed: Timestamp,
    valid_seconds: i64,
    by_stranger: bool,
    creations: Vec<(u64, Name)>,
}

/// Which pods wrote under the holder's identity.
#[derive(Debug, Default)]
struct Authors {
    identity: u64,
    /// The pods whose writes were confirmed, the latest last.
    confirmed: Vec<Name>,
    /// What a pod tried to write, by the hash of the object and its record.
    pending: Vec<(u64, Name)>,
}

impl Name {
    fn of(text: &str, hasher: &Hasher) -> Self {
        Self {
            hash: hasher.of(text),
            text: text
                .get(..text.floor_char_boundary(LONGEST_NAME))
                .unwrap_or(text)
                .into(),
        }
    }
}

impl Remembered {
    /// Nothing yet, of a lease first reviewed at this Unix second.
    pub(super) fn since(now: i64) -> Self {
        Self {
            seen: now,
            version: 0,
            holder: Holder::Unknown,
            candidate: None,
            changes: Vec::new(),
            deletion: None,
            authors: None,
        }
    }

    /// The Unix second of the last review that showed something newer.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// How many seconds ago that was; 0 where the clock was set back.
    pub(super) fn age_at(&self, now: i64) -> i64 {
        now.saturating_sub(self.seen).max(0)
    }

    /// The bytes it takes, heap included.
    pub(super) fn bytes(&self) -> usize {
        let names = |names: &Vec<(u64, Name)>| {
            let texts: usize = names.iter().map(|(_, name)| name.text.len()).sum();
            texts + names.capacity() * size_of::<(u64, Name)>()
        };
        let deletion = self.deletion.as_ref().map_or(0, |deletion| {
            size_of::<Deletion>() + deletion.holder.text.len() + names(&deletion.creations)
        });
        let authors = self.authors.as_ref().map_or(0, |authors| {
            let confirmed: usize = authors.confirmed.iter().map(|name| name.text.len()).sum();
            size_of::<Authors>()
                + confirmed
                + authors.confirmed.capacity() * size_of::<Name>()
                + names(&authors.pending)
        });
        size_of::<Self>() + self.changes.capacity() * size_of::<i64>() + deletion + authors
    }

    /// Takes note of the object that a write replaces, and tells what that confirms.
    pub(super) fn see(&mut self, write: &Write<'_>, hasher: &Hasher) -> History {
        let version = write.old.resource_version.unwrap_or(self.version);
        // An attempt that will fail may be reviewed with an object of yesterday. Without its review counted as
        // one, a lease whose versions start anew (etcd restored from a backup) is forgotten after a while.
        if version < self.version {
            return History::default();
        }
        self.version = version;
        self.seen = self.seen.max(write.reviewed.as_second());
        History {
            recreation: self.see_recreation(&write.old, hasher),
            holder_changes: self.see_holder(write, hasher),
            shared_identity: self.see_author(&write.old, hasher),
        }
    }

    /// Whether an attempt leaves anything to confirm.
    pub(super) fn is_noteworthy(write: &Write<'_>) -> bool {
        match write.change {
            Change::Delete | Change::Takeover | Change::Handover | Change::Acquire => true,
            // With coordinated leader election the API server tries to create a lease about once a second, whether
            // or not it is there (observed), and elects its holder.
            Change::Create => write.new.record.strategy.is_none(),
            Change::Renew | Change::Amend => beats(write),
            Change::Release | Change::Untouched => false,
        }
    }

    /// Takes note of an attempt that may become a write.
    pub(super) fn note(&mut self, write: &Write<'_>, hasher: &Hasher) {
        if write.change == Change::Delete {
            self.deletion = Deletion::of(write, hasher).map(Box::new);
            return;
        }
        let Some(holder) = write.new.record.holder.as_deref() else {
            return;
        };
        if write.change == Change::Create
            && let (Some(deletion), Some(uid)) = (&mut self.deletion, &write.new.uid)
        {
            push(
                &mut deletion.creations,
                (hasher.of(uid), Name::of(holder, hasher)),
                PENDING,
            );
        }
        if write.change == Change::Create || write.change.gives_a_new_holder() {
            self.candidate = Some((hasher.of(holder), write.reviewed.as_second()));
        }
        if beats(write)
            && let Some(pod) = write.writer.pod.as_deref()
        {
            let authors = self.authors.get_or_insert_default();
            let attempt = (fingerprint(&write.new, hasher), Name::of(pod, hasher));
            push(&mut authors.pending, attempt, PENDING);
        }
    }

    /// The lease that was deleted is another one now: whoever created this one is known by its uid.
    fn see_recreation(&mut self, old: &State<'_>, hasher: &Hasher) -> Option<Recreation> {
        let uid = hasher.of(old.uid.as_ref()?);
        let deletion = self.deletion.as_ref()?;
        if uid == deletion.uid {
            // Still there after the attempt to delete it; what was true then may be so no more.
            if old
                .resource_version
                .is_none_or(|version| version > deletion.version)
            {
                self.deletion = None;
            }
            return None;
        }
        let deletion = self.deletion.take()?;
        let (_, creator) = deletion.creations.iter().find(|(created, _)| *created == uid)?;
        if creator.hash == deletion.holder.hash {
            return None;
        }
        Some(Recreation {
            deleted_holder: deletion.holder.text.into(),
            renewed: deletion.renewed,
            valid_seconds: deletion.valid_seconds,
            deleted_by_stranger: deletion.by_stranger,
            new_holder: creator.text.to_string(),
            created: old.stamps.created?,
        })
    }

    fn see_holder(&mut self, write: &Write<'_>, hasher: &Hasher) -> Vec<Timestamp> {
        let now = write.reviewed.as_second();
        let holder = match write.old.record.holder.as_deref() {
            None => Holder::Nobody,
            Some(holder) => Holder::Somebody(hasher.of(holder)),
        };
        let before = std::mem::replace(&mut self.holder, holder);
        let Holder::Somebody(holder) = holder else {
            return Vec::new();
        };
        if before == Holder::Unknown || before == Holder::Somebody(holder) {
            return Vec::new();
        }
        // The change is older than this review: it happened when the holder that is seen now tried.
        let changed = self
            .candidate
            .filter(|(candidate, _)| *candidate == holder)
            .map_or(now, |(_, tried)| tried.min(now));
        push(&mut self.changes, changed, MOST_HOLDER_CHANGES);
        self.changes
            .retain(|change| now.saturating_sub(*change) <= REMEMBERED_SECONDS);
        let instants = self.changes.iter();
        instants
            .filter_map(|change| Timestamp::from_second(*change).ok())
            .collect()
    }

    fn see_author(&mut self, old: &State<'_>, hasher: &Hasher) -> Option<SharedIdentity> {
        let authors = self.authors.as_mut()?;
        let identity = hasher.of(old.record.holder.as_deref()?);
        let written = fingerprint(old, hasher);
        let mut writers = authors
            .pending
            .extract_if(.., |(tried, _)| *tried == written)
            .map(|(_, pod)| pod)
            .collect::<Vec<_>>()
            .into_iter();
        let author = writers.next()?;
        // Several tried to write the very same: each may have done it.
        if writers.any(|other| other.hash != author.hash) {
            return None;
        }
        if authors.identity != identity {
            authors.identity = identity;
            authors.confirmed.clear();
        }
        let earlier = authors.confirmed.iter().position(|pod| pod.hash == author.hash);
        let last = authors.confirmed.last().cloned();
        let pod = author.text.to_string();
        let came_back = last.filter(|last| last.hash != author.hash && earlier.is_some());
        if let Some(earlier) = earlier {
            authors.confirmed.remove(earlier);
        }
        push(&mut authors.confirmed, author, AUTHORS);
        came_back.map(|other| SharedIdentity {
            pod,
            other: other.text.into(),
        })
    }
}

impl Deletion {
    /// What to remember of the deletion of a held lease; `None` where nobody loses it before its time.
    fn of(write: &Write<'_>, hasher: &Hasher) -> Option<Self> {
        let State {
            record, stamps, uid, ..
        } = &write.old;
        // A holder that deletes its own lease lets it go.
        let ownership = write.ownership();
        if ownership == Ownership::Own {
            return None;
        }
        Some(Self {
            uid: hasher.of(uid.as_ref()?),
            version: write.old.resource_version.unwrap_or(0),
            holder: Name::of(record.holder.as_deref()?, hasher),
            renewed: write.old.renewed().or(stamps.created)?,
            valid_seconds: record.valid_seconds()?,
            by_stranger: ownership == Ownership::Foreign,
            creations: Vec::new(),
        })
    }
}

/// Whether a pod writes as a holder: it becomes one, or moves the holder's renewTime, and it is not plainly another
/// that touches a lease which is not its own.
fn beats(write: &Write<'_>) -> bool {
    let (old, new) = (&write.old.record, &write.new.record);
    let as_holder = match write.change {
        Change::Create | Change::Takeover | Change::Acquire => true,
        Change::Renew | Change::Amend => old.renew_time != new.renew_time,
        // The one who gives the lease writes another's name.
        Change::Handover | Change::Release | Change::Untouched | Change::Delete => false,
    };
    as_holder
        && write.writer.pod.is_some()
        && new
            .holder
            .as_deref()
            .is_some_and(|holder| write.writer.ownership_of(holder, None) != Ownership::Foreign)
}

/// One object with one record: what an attempt would leave, and what a later review shows if it did.
fn fingerprint(state: &State<'_>, hasher: &Hasher) -> u64 {
    hasher.of((&state.uid, &state.record))
}

/// Adds to a list that holds at most `most`; the oldest goes.
fn push<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() >= most {
        list.remove(0);
    }
    if list.len() == list.capacity() {
        list.reserve_exact(1);
    }
    list.push(item);
}
