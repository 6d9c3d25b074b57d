//! Builders for records and writes, so that a case states only what it is about.

use jiff::Timestamp;

use super::{Change, LeaseName, ObjectKind, Record, Stamp, State, Write, Writer};

/// The instant `seconds` after an arbitrary beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

/// A record under construction.
#[derive(Clone, Debug)]
pub(crate) struct Draft(pub(crate) Record<'static>);

/// A record held by `holder`, valid for 15 s, with 3 transitions.
pub(crate) fn held(holder: &'static str) -> Draft {
    Draft(Record {
        holder: Some(holder.into()),
        duration_seconds: Some(15),
        transitions: Some(3),
        ..Record::default()
    })
}

/// A free record with 3 transitions.
pub(crate) fn free() -> Draft {
    Draft(Record {
        transitions: Some(3),
        ..Record::default()
    })
}

/// A record that nobody ever held.
pub(crate) fn untouched() -> Draft {
    Draft(Record::default())
}

impl Draft {
    pub(crate) fn renewed_at(mut self, seconds: i64) -> Self {
        self.0.renew_time = Some(at(seconds));
        self
    }
    pub(crate) fn acquired_at(mut self, seconds: i64) -> Self {
        self.0.acquire_time = Some(at(seconds));
        self
    }
    pub(crate) fn duration(mut self, seconds: impl Into<Option<i32>>) -> Self {
        self.0.duration_seconds = seconds.into();
        self
    }
    pub(crate) fn transitions(mut self, count: impl Into<Option<i32>>) -> Self {
        self.0.transitions = count.into();
        self
    }
    pub(crate) fn strategy(mut self, strategy: &'static str) -> Self {
        self.0.strategy = Some(strategy.into());
        self
    }
}

fn write(change: Change, old: Record<'static>, new: Record<'static>) -> Write<'static> {
    Write {
        lease: LeaseName {
            kind: ObjectKind::Lease,
            namespace: "shop".into(),
            name: "payments".into(),
        },
        writer: Writer::default(),
        change,
        old: State {
            record: old,
            ..State::default()
        },
        new: State {
            record: new,
            ..State::default()
        },
        reviewed: at(0),
    }
}

/// An update from one record to another, without stamps.
pub(crate) fn update(old: Draft, new: Draft) -> Write<'static> {
    write(Change::between(&old.0, &new.0), old.0, new.0)
}

/// A takeover, without stamps. Panics if it is not one.
pub(crate) fn takeover(old: Draft, new: Draft) -> Write<'static> {
    let write = update(old, new);
    assert_eq!(write.change, Change::Takeover);
    write
}

/// A create of `new`, without stamps.
pub(crate) fn create(new: Draft) -> Write<'static> {
    write(Change::Create, Record::default(), new.0)
}

impl Write<'static> {
    /// The same write, of a lease last renewed at `renewed` and written at `now`, by the API server's stamps
    /// (seconds after [`at`]`(0)`); this process's clock agrees.
    pub(crate) fn stamped(mut self, renewed: i64, now: i64) -> Self {
        self.old.stamps.renew_time = Stamp::At(at(renewed));
        self.old.stamps.holder = Stamp::At(at(renewed));
        self.new.stamps.renew_time = Stamp::At(at(now));
        self.new.stamps.holder = Stamp::At(at(now));
        self.reviewed = at(now);
        self
    }
}

impl Write<'static> {
    /// The same write, by a token that is bound to `pod`.
    pub(crate) fn by_pod(mut self, pod: &'static str) -> Self {
        self.writer.pod = Some(pod.into());
        self
    }
}
