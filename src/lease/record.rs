//! The leader-election record.

use std::borrow::Cow;

use jiff::Timestamp;

/// What one version of a lease says.
///
/// Two spellings of the same are one here: an absent `holderIdentity` and an empty one both mean *free*
/// (client-go releases with `""`, kubert and the official Java client by removing the field).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record<'a> {
    /// Who holds the lease; `None` when it is free. Never `Some("")`.
    pub holder: Option<Cow<'a, str>>,
    /// For how many seconds after its last renewal the record is valid. `None` when the field is absent.
    pub duration_seconds: Option<i32>,
    /// When the holder says that its term began, by its own clock.
    pub acquire_time: Option<Timestamp>,
    /// When the holder says that it last renewed, by its own clock.
    pub renew_time: Option<Timestamp>,
    /// Whether the times were written without saying in which zone they are (annotation locks of the official Python
    /// client). They then read as if in UTC: good to tell whether they changed, and not to be compared with a clock.
    pub zoneless: bool,
    /// How often the lease changed hands. `None` when the field is absent, which an elector that never counts
    /// leaves it.
    pub transitions: Option<i32>,
    /// `spec.strategy`, set when the API server elects the holder (KEP-4355).
    pub strategy: Option<Cow<'a, str>>,
    /// `spec.preferredHolder` (KEP-4355).
    pub preferred_holder: Option<Cow<'a, str>>,
}

/// The field that a holder writes anew with each renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heartbeat {
    /// `renewTime`.
    RenewTime,
    /// `acquireTime`, where there is no renewTime (Pekko's `NativeKubernetesApiImpl`).
    AcquireTime,
}

impl Heartbeat {
    /// The field's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RenewTime => "renewTime",
            Self::AcquireTime => "acquireTime",
        }
    }
}

impl<'a> Record<'a> {
    /// The holder from a `holderIdentity` field: absent and empty are both `None`.
    pub fn holder_from(field: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        field.filter(|identity| !identity.is_empty())
    }

    /// How long the record is valid after its last renewal, in seconds; `None` when it has no usable duration,
    /// in which case every elector treats it as free.
    pub fn valid_seconds(&self) -> Option<i64> {
        self.duration_seconds
            .filter(|seconds| *seconds > 0)
            .map(i64::from)
    }

    /// The field by which the record is renewed.
    pub fn heartbeat(&self) -> Heartbeat {
        if self.renew_time.is_none() && self.acquire_time.is_some() {
            Heartbeat::AcquireTime
        } else {
            Heartbeat::RenewTime
        }
    }

    /// When the holder says that it wrote this field.
    pub fn time_of(&self, heartbeat: Heartbeat) -> Option<Timestamp> {
        match heartbeat {
            Heartbeat::RenewTime => self.renew_time,
            Heartbeat::AcquireTime => self.acquire_time,
        }
    }

    /// `renewTime` where it can be compared with a clock.
    pub fn renew_instant(&self) -> Option<Timestamp> {
        self.renew_time.filter(|_| !self.zoneless)
    }

    /// The transitions counted so far; an absent field reads as 0, as in client-go.
    pub fn transitions_or_zero(&self) -> i32 {
        self.transitions.unwrap_or(0)
    }

    /// Whether no trace of any holder is in the record: an empty `spec`, or one that only states a duration.
    pub fn was_never_held(&self) -> bool {
        self.holder.is_none()
            && self.acquire_time.is_none()
            && self.renew_time.is_none()
            && self.transitions_or_zero() == 0
    }
}
