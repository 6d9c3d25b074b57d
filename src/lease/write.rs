//! One attempt to write a lease, as the rules see it.

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp};

use super::{Change, Ownership, Purpose, Record, Stamps, Writer};

/// What kind of object carries the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A Lease, in its spec.
    #[default]
    Lease,
    /// A ConfigMap, in an annotation.
    ConfigMap,
    /// An Endpoints object, in an annotation.
    Endpoints,
}

impl ObjectKind {
    /// The kind by Kubernetes' name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "Lease",
            Self::ConfigMap => "ConfigMap",
            Self::Endpoints => "Endpoints",
        }
    }
}

/// Which lease is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseName<'a> {
    /// What carries it.
    pub kind: ObjectKind,
    /// `metadata.namespace`.
    pub namespace: Cow<'a, str>,
    /// `metadata.name`.
    pub name: Cow<'a, str>,
}

impl fmt::Display for LeaseName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)?;
        match self.kind {
            ObjectKind::Lease => Ok(()),
            kind => write!(formatter, " (annotation of its {})", kind.as_str()),
        }
    }
}

/// One version of a lease: what it says, and what the API server noted about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State<'a> {
    /// What it says.
    pub record: Record<'a>,
    /// When the API server saw it written.
    pub stamps: Stamps,
    /// Whether `metadata.managedFields` has any entry. Where it has none although the record says something, no plain
    /// write brings a stamp back.
    pub tracked: bool,
    /// `metadata.uid`: another for each object that ever had the name. The API server gives an attempt to create
    /// its uid before admission, so that a failed one has a uid that never shows again.
    pub uid: Option<Cow<'a, str>>,
    /// `metadata.resourceVersion`, which grows with every write (a number, and comparable: KEP-5504).
    pub resource_version: Option<u64>,
    /// The field manager that owns the holder; `None` where several do, as by server-side applies of the same value: then
    /// nothing tells which of them is the holder's.
    pub holder_manager: Option<Cow<'a, str>>,
    /// `metadata.labels`, in their order.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The annotation `leasehold.dev/break-glass`: why somebody takes the lease by hand.
    pub break_glass: Option<Cow<'a, str>>,
    /// The revision for which Istio's priority lock holds it (the annotation `leader.istio.io/holder-key`).
    pub istio_key: Option<Cow<'a, str>>,
    /// `metadata.ownerReferences`: the objects with which it goes.
    pub owners: Vec<Owner<'a>>,
    /// Whether it is being deleted, and only waits for finalizers.
    pub terminating: bool,
}

/// An object that owns another: an entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The owner's `apiVersion`, as in `longhorn.io/v1beta2`.
    pub api_version: Cow<'a, str>,
    /// The owner's `kind`.
    pub kind: Cow<'a, str>,
}

impl State<'_> {
    /// When the record was last renewed, by the API server's clock: the stamp of its heartbeat.
    pub fn renewed(&self) -> Option<Timestamp> {
        self.stamps.of(self.record.heartbeat()).time()
    }
}

/// One attempt to write a lease. An attempt is not a write: it may still fail, or be reviewed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Which lease.
    pub lease: LeaseName<'a>,
    /// Who writes.
    pub writer: Writer<'a>,
    /// What the write does to it.
    pub change: Change,
    /// The lease before. All empty on [`Change::Create`].
    pub old: State<'a>,
    /// The lease after. All empty on [`Change::Delete`].
    pub new: State<'a>,
    /// When the review was read, by this process's clock. Only where no stamp can tell.
    pub reviewed: Timestamp,
}

impl<'a> Write<'a> {
    /// A write from one state of a lease to the next; no old state is a create, no new state is a delete. `reviewed` is
    /// this process's clock.
    pub fn new(
        lease: LeaseName<'a>,
        writer: Writer<'a>,
        old: Option<State<'a>>,
        new: Option<State<'a>>,
        reviewed: Timestamp,
    ) -> Self {
        let change = match (&old, &new) {
            (Some(old), Some(new)) => match Change::between(&old.record, &new.record) {
                Change::Takeover if gives(&writer, old, new) => Change::Handover,
                change => change,
            },
            (None, _) => Change::Create,
            (Some(_), None) => Change::Delete,
        };
        Self {
            lease,
            writer,
            change,
            old: old.unwrap_or_default(),
            new: new.unwrap_or_default(),
            reviewed,
        }
    }
}

/// Whether the writer is provably the holder and writes the name of another.
///
/// A holder that writes another name of its own claims the lease for a new process, in place of one that may still work:
/// that is a takeover.
fn gives(writer: &Writer<'_>, old: &State<'_>, new: &State<'_>) -> bool {
    let (Some(holder), Some(successor)) = (old.record.holder.as_deref(), new.record.holder.as_deref()) else {
        return false;
    };
    !writer.goes_by(successor) && writer.ownership_of(holder, old.holder_manager.as_deref()) == Ownership::Own
}

impl Write<'_> {
    /// What the lease is for, by its records before and after.
    pub fn purpose(&self) -> Purpose {
        Purpose::of(&self.old.record, &self.new.record)
    }

    /// When this write happens by the API server's own clock, where the write itself carries that.
    ///
    /// The stamp of the holder where the holder changes, since that one cannot be forged; else that of
    /// renewTime where renewTime changes. A write that only removes fields moves no stamp and has none.
    pub fn stamped_now(&self) -> Option<Timestamp> {
        match self.change {
            Change::Create | Change::Takeover | Change::Handover | Change::Acquire => {
                self.new.stamps.holder.time()
            }
            Change::Renew | Change::Amend | Change::Release
                if self.new.record.renew_time.is_some()
                    && self.old.record.renew_time != self.new.record.renew_time =>
            {
                self.new.stamps.renew_time.time()
            }
            Change::Renew | Change::Amend | Change::Release | Change::Untouched | Change::Delete => None,
        }
    }

    /// Whether the write lets a lease go, in any of the three spellings: the holder empty, the holder absent, or
    /// the holder still named and a duration of one second (fabric8, zio-k8s, Bonny).
    pub fn is_release(&self) -> bool {
        let (old, new) = (&self.old.record, &self.new.record);
        match self.change {
            Change::Release => true,
            Change::Amend => {
                old.holder.is_some()
                    && new.duration_seconds == Some(1)
                    && old.duration_seconds.is_some_and(|before| before > 1)
            }
            _ => false,
        }
    }

    /// Whether the holder stays and its duration is lowered or removed, so that the lease ends sooner.
    pub fn shortens(&self) -> bool {
        let (old, new) = (&self.old.record, &self.new.record);
        // No duration is less than any.
        self.change == Change::Amend && old.holder.is_some() && new.duration_seconds < old.duration_seconds
    }

    /// Whether the writer is the one who held the lease; [`Ownership::CannotTell`] where nobody did.
    pub fn ownership(&self) -> Ownership {
        self.old
            .record
            .holder
            .as_deref()
            .map_or(Ownership::CannotTell, |holder| {
                self.writer
                    .ownership_of(holder, self.old.holder_manager.as_deref())
            })
    }

    /// How far the writer's clock is ahead of the API server's (negative: behind): the renewTime that it wrote
    /// against the stamp of that write. `None` where the write carries no such pair.
    pub fn skew(&self) -> Option<SignedDuration> {
        let claimed = self.new.record.renew_instant()?;
        if self.change != Change::Create && self.old.record.renew_time == Some(claimed) {
            return None;
        }
        Some(claimed.duration_since(self.stamped_now()?))
    }
}
