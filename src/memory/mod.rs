//! What Leasehold remembers of the leases that it reviewed, for the rules that advise by it.
//!
//! A verdict that denies is a function of the review, the policy and the instant; what needs memory only
//! advises, and leaves the process with it. Memory is bounded in leases ([`MOST_LEASES`]), in age
//! ([`REMEMBERED_SECONDS`]) and in what is kept of each lease; the least recently reviewed leases go first.
//!
//! A review is an attempt, not a write: an allowed write may still fail, and is then not remembered as if it had
//! happened. What a review shows as the object that it replaces *is* true, so a remembered attempt counts only
//! once such an object carries its marks: the uid for a create and a delete, the holder for a change of holder,
//! the whole record for who wrote it. Dry runs and denied writes are not remembered at all.
//!
//! # Size
//!
//! An ordinary lease takes some 130 bytes, one under whose identity two pods write in turn some 330 (measured by a
//! test, with 100,000 leases and names as long as in the field), so that the cap keeps all of it under 6 MB. Whoever
//! does all that can be remembered, with the longest names, gets a lease to 2,600 bytes and all of it to 43 MB.
//!
//! # Locks
//!
//! The memory is cut into shards by the lease's name, each behind a lock that is only ever *tried*: a review that
//! finds its shard taken goes without memory rather than wait, and `leasehold_memory_skipped_total` counts it.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod remembered;

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, TryLockError},
};

use self::remembered::Remembered;
use crate::{
    lease::{Change, History, REMEMBERED_SECONDS, Write},
    metrics::memory::MemoryMetrics,
};

/// The most leases that are remembered. Large clusters have some hundred electors; the rest is for leases whose
/// names are made anew at each start.
pub const MOST_LEASES: usize = 16_384;

/// So many that two cores seldom meet in one: with 64, two reviews that are in the memory at the same instant
/// collide once in 64 times, and each is there for less than a microsecond.
const SHARDS: usize = 64;

/// How many seconds pass between two sweeps of a shard for leases that are too old.
const SWEEP: i64 = 60;

/// What is remembered of all leases.
#[derive(Debug)]
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    most_per_shard: usize,
    hasher: Hasher,
    metrics: MemoryMetrics,
}

#[derive(Debug, Default)]
struct Shard {
    /// By the hash of the lease's name.
    leases: HashMap<u64, Box<Remembered>>,
    /// The Unix second of the last sweep for leases that are too old.
    swept: i64,
}

/// Hashes with keys that nobody outside the process knows, so that nobody can make two names meet. By chance two
/// of 16,384 leases do so once in a hundred billion processes.
#[derive(Debug, Default)]
struct Hasher(RandomState);

impl Hasher {
    fn of(&self, value: impl Hash) -> u64 {
        self.0.hash_one(value)
    }
}

impl Memory {
    /// Remembers nothing yet, and at most [`MOST_LEASES`].
    pub fn new(metrics: MemoryMetrics) -> Self {
        Self::with_capacity(MOST_LEASES, metrics)
    }

    fn with_capacity(most_leases: usize, metrics: MemoryMetrics) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most_per_shard: most_leases.div_ceil(SHARDS),
            hasher: Hasher::default(),
            metrics,
        }
    }

    /// Takes note of the object that a write replaces, and tells what that confirms. Not for dry runs.
    pub fn recall(&self, write: &Write<'_>) -> Option<History> {
        if write.change == Change::Create {
            return None;
        }
        let key = self.hasher.of(&write.lease);
        let mut shard = self.shard(key)?;
        let history = self.remembered(&mut shard, key, write).see(write, &self.hasher);
        (!history.is_empty()).then_some(history)
    }

    /// Takes note of an attempt to write that was allowed and is no dry run.
    pub fn remember(&self, write: &Write<'_>) {
        if !Remembered::is_noteworthy(write) {
            return;
        }
        let key = self.hasher.of(&write.lease);
        let Some(mut shard) = self.shard(key) else { return };
        self.remembered(&mut shard, key, write).note(write, &self.hasher);
    }

    /// How many leases are remembered.
    pub fn len(&self) -> usize {
        self.locked().map(|shard| shard.leases.len()).sum()
    }

    /// Whether no lease is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that the memory takes, heap included, but for the allocator's own overhead.
    pub fn bytes(&self) -> usize {
        // hashbrown keeps a byte of its own for each place, and has 8/7 as many places as its capacity.
        let place = size_of::<u64>() + size_of::<Box<Remembered>>() + 1;
        let of_shard = |shard: MutexGuard<'_, Shard>| {
            let table = shard.leases.capacity() * place * 8 / 7;
            let leases: usize = shard.leases.values().map(|lease| lease.bytes()).sum();
            table + leases
        };
        size_of::<Self>() + SHARDS * size_of::<Mutex<Shard>>() + self.locked().map(of_shard).sum::<usize>()
    }

    fn locked(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The shard of a lease; `None`, and counted, where another review is in it.
    fn shard(&self, key: u64) -> Option<MutexGuard<'_, Shard>> {
        let index = usize::try_from(key % SHARDS as u64).ok()?;
        match self.shards.get(index)?.try_lock() {
            Ok(shard) => Some(shard),
            // Whatever a panic left there is still a bounded map of advice.
            Err(TryLockError::Poisoned(shard)) => Some(shard.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.metrics.skipped();
                None
            }
        }
    }

    /// What is remembered of a lease, made room for where it is new.
    fn remembered<'a>(&self, shard: &'a mut Shard, key: u64, write: &Write<'_>) -> &'a mut Remembered {
        let now = write.reviewed.as_second();
        let Shard { leases, swept } = shard;
        if leases
            .get(&key)
            .is_none_or(|lease| lease.age_at(now) > REMEMBERED_SECONDS)
        {
            let before = leases.len();
            leases.remove(&key);
            // A clock that was set back is no reason to wait for it to come back.
            if !(0..SWEEP).contains(&now.saturating_sub(*swept)) {
                leases.retain(|_, lease| lease.age_at(now) <= REMEMBERED_SECONDS);
                *swept = now;
            }
            let evicted = self.make_room(leases);
            self.metrics.forgot(before - leases.len());
            self.metrics.evicted(evicted);
        }
        leases.entry(key).or_insert_with(|| {
            self.metrics.met();
            Box::new(Remembered::since(now))
        })
    }

    /// Evicts the least recently reviewed eighth of a full shard, so that a shard which stays full is searched
    /// only now and then. Returns how many went.
    fn make_room(&self, leases: &mut HashMap<u64, Box<Remembered>>) -> usize {
        if leases.len() < self.most_per_shard {
            return 0;
        }
        let mut ages: Vec<_> = leases.iter().map(|(key, lease)| (lease.seen(), *key)).collect();
        let going = (self.most_per_shard / 8).max(1).min(ages.len());
        ages.select_nth_unstable(going - 1);
        for (_, key) in ages.iter().take(going) {
            leases.remove(key);
        }
        going
    }
}

#[cfg(test)]
mod tests;
