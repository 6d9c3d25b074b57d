//! The times that the API server wrote into `metadata.managedFields`.

use jiff::Timestamp;

use super::Heartbeat;

/// When the API server last saw a field written, by its own clock, floored to the second.
///
/// Ordered so that the greater of two stamps of one field is the one to believe: several entries may own a
/// field (server-side apply), and the latest dated one tells of its last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stamp {
    /// No entry owns the field.
    #[default]
    Absent,
    /// An entry owns the field, and none that does has a time.
    Undated,
    /// The latest time of the entries that own the field.
    At(Timestamp),
}

impl Stamp {
    /// The instant, where there is one.
    pub fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::Absent | Self::Undated => None,
        }
    }
}

/// The stamps of one version of an object that a verdict leans on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Who holds the lease was last written then. On a write that changes the holder, the API server stamps
    /// this itself whatever the client sends, so it is the one trustworthy *now* of such a write.
    pub holder: Stamp,
    /// `renewTime` was last written then.
    pub renew_time: Stamp,
    /// `acquireTime` was last written then.
    pub acquire_time: Stamp,
    /// `metadata.creationTimestamp`, which no client can set.
    pub created: Option<Timestamp>,
}

impl Stamps {
    /// The stamp of the field by which a lease is renewed.
    pub fn of(&self, heartbeat: Heartbeat) -> Stamp {
        match heartbeat {
            Heartbeat::RenewTime => self.renew_time,
            Heartbeat::AcquireTime => self.acquire_time,
        }
    }
}
