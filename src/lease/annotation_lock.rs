//! The record in an annotation: leader election as it was before the Lease, on ConfigMaps and Endpoints.
//!
//! Every client writes the same annotation, each in its own way:
//!
//! | client | duration | times | transitions | free |
//! |---|---|---|---|---|
//! | client-go to v0.30 (`tools/leaderelection/resourcelock`), Java, C# | `leaseDurationSeconds`, a number | RFC 3339 | `leaderTransitions` | `holderIdentity` is `""` |
//! | fabric8, and so Flink's high availability | `leaseDuration`, decimal seconds | RFC 3339 with microseconds | `leaderTransitions` | `holderIdentity` is left out |
//! | Python (`kubernetes.leaderelection`) | `leaseDurationSeconds`, a string | `2026-11-20 09:30:00.123456`, the local time of somewhere | none | never |
//!
//! What cannot be read is not judged: neither the write that brings it nor the one after it, which may name any holder.
//! Both are counted and logged.

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess},
};

use super::Record;

/// The annotation's key (`resourcelock.LeaderElectionRecordAnnotationKey` of client-go).
pub const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// Why an annotation's value is no leader-election record. Never tells what the value was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// Not JSON, or JSON of another type.
    #[error("it is not a JSON object (line {line}, column {column})")]
    Json {
        /// Where reading ended, from 1.
        line: usize,
        /// Where reading ended in that line, from 1; 0 at its very beginning.
        column: usize,
    },
    /// A field that holds something else than it should.
    #[error("{field} is not {expected}")]
    Field {
        /// The field, as the record spells it.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// Reads a record from the annotation's value, in any of the dialects, as Go's `encoding/json` reads it: unknown fields
/// are passed over, a field's name counts in whatever case it is written, and of a field that is there twice the last one
/// counts that is not null. (Only of times does Go take a null, too; nothing hangs on those.)
///
/// Durations are rounded down to whole seconds, so that nobody who waited is early. Numbers beyond 32 bits read as
/// the limit, where the rules on durations and transitions find them.
///
/// # Errors
/// [`MalformedRecord`], for a value that no client could have written.
pub fn parse(value: &str) -> Result<Record<'static>, MalformedRecord> {
    parse_with_key(value).map(|(record, _)| record)
}

/// The same, and the revision for which Istio's priority lock holds it: the field `holderKey` (`LeaderElectionRecord` in
/// istio/istio's `pilot/pkg/leaderelection/k8sleaderelection/k8sresourcelock/interface.go`), which on a Lease is an
/// annotation.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_key(value: &str) -> Result<(Record<'static>, Option<Cow<'static, str>>), MalformedRecord> {
    let fields: Fields = serde_json::from_str(value).map_err(|error| MalformedRecord::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let seconds = fields.lease_duration_seconds.number("leaseDurationSeconds")?;
    let acquire_time = fields.acquire_time.time("acquireTime")?;
    let renew_time = fields.renew_time.time("renewTime")?;
    let zoneless = [acquire_time, renew_time]
        .iter()
        .flatten()
        .any(|time| time.zoneless);
    let record = Record {
        holder: Record::holder_from(fields.holder_identity.text("holderIdentity")?),
        duration_seconds: match seconds {
            Some(seconds) => Some(seconds),
            None => fields.lease_duration.number("leaseDuration")?,
        },
        acquire_time: acquire_time.map(|time| time.instant),
        renew_time: renew_time.map(|time| time.instant),
        zoneless,
        transitions: fields.leader_transitions.number("leaderTransitions")?,
        strategy: Record::holder_from(fields.strategy.if_text()),
        preferred_holder: Record::holder_from(fields.preferred_holder.if_text()),
    };
    Ok((record, fields.holder_key.if_text()))
}

/// The fields of all dialects.
#[derive(Default)]
struct Fields {
    holder_identity: Scalar,
    lease_duration_seconds: Scalar,
    lease_duration: Scalar,
    acquire_time: Scalar,
    renew_time: Scalar,
    leader_transitions: Scalar,
    strategy: Scalar,
    preferred_holder: Scalar,
    holder_key: Scalar,
}

impl Fields {
    /// The field that a key names, in whatever case.
    fn of(&mut self, key: &str) -> Option<&mut Scalar> {
        let fields = [
            ("holderIdentity", &mut self.holder_identity),
            ("leaseDurationSeconds", &mut self.lease_duration_seconds),
            ("leaseDuration", &mut self.lease_duration),
            ("acquireTime", &mut self.acquire_time),
            ("renewTime", &mut self.renew_time),
            ("leaderTransitions", &mut self.leader_transitions),
            ("strategy", &mut self.strategy),
            ("preferredHolder", &mut self.preferred_holder),
            ("holderKey", &mut self.holder_key),
        ];
        fields
            .into_iter()
            .find(|(name, _)| key.chars().map(folded).eq(name.chars().map(folded)))
            .map(|(_, field)| field)
    }
}

/// A character as Go compares it in keys (`foldName` in `encoding/json/fold.go`): two letters beyond ASCII are the same
/// as one within.
fn folded(character: char) -> char {
    match character {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        _ => character.to_ascii_lowercase(),
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a leader-election record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                    let Some(field) = fields.of(&key) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    match map.next_value()? {
                        Scalar::Absent => {}
                        value => *field = value,
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// A value of whatever type; what it should have been is known only by its field.
#[derive(Default)]
enum Scalar {
    /// Absent, or null.
    #[default]
    Absent,
    Text(String),
    Integer(i64),
    Decimal(f64),
    /// Of a type that no dialect knows.
    Other,
}

impl Scalar {
    fn text(self, field: &'static str) -> Result<Option<Cow<'static, str>>, MalformedRecord> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(text.into())),
            Self::Integer(_) | Self::Decimal(_) | Self::Other => Err(MalformedRecord::Field {
                field,
                expected: "a string",
            }),
        }
    }

    /// For fields that only some clients know, so that the record is good to the others whatever is there.
    fn if_text(self) -> Option<Cow<'static, str>> {
        match self {
            Self::Text(text) => Some(text.into()),
            _ => None,
        }
    }

    /// A whole number, or one in decimals or in a string; within 32 bits.
    fn number(self, field: &'static str) -> Result<Option<i32>, MalformedRecord> {
        let malformed = MalformedRecord::Field {
            field,
            expected: "a number",
        };
        let decimal = match self {
            Self::Absent => return Ok(None),
            Self::Integer(integer) => return Ok(Some(within_32_bits(integer))),
            Self::Decimal(decimal) => decimal,
            Self::Text(text) => match text.parse::<i64>() {
                Ok(integer) => return Ok(Some(within_32_bits(integer))),
                Err(_) => text.parse().map_err(|_| malformed)?,
            },
            Self::Other => return Err(malformed),
        };
        if !decimal.is_finite() {
            return Err(malformed);
        }
        let whole = SignedDuration::try_from_secs_f64(decimal.floor()).map(|seconds| seconds.as_secs());
        let limit = if decimal < 0.0 { i64::MIN } else { i64::MAX };
        Ok(Some(within_32_bits(whole.unwrap_or(limit))))
    }

    fn time(self, field: &'static str) -> Result<Option<Time>, MalformedRecord> {
        let malformed = MalformedRecord::Field {
            field,
            expected: "a time such as 2026-11-20T09:30:00Z",
        };
        let text = match self {
            Self::Absent => return Ok(None),
            Self::Text(text) if text.is_empty() => return Ok(None),
            Self::Text(text) => text,
            Self::Integer(_) | Self::Decimal(_) | Self::Other => return Err(malformed),
        };
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Some(Time {
                instant,
                zoneless: false,
            }));
        }
        let local = text.parse::<civil::DateTime>().map_err(|_| malformed)?;
        let instant = TimeZone::UTC.to_timestamp(local).map_err(|_| malformed)?;
        Ok(Some(Time {
            instant,
            zoneless: true,
        }))
    }
}

/// A time, and whether it was written without saying where.
#[derive(Clone, Copy)]
struct Time {
    /// As if in UTC, where it does not say.
    instant: Timestamp,
    zoneless: bool,
}

/// A number as `Record` holds it.
fn within_32_bits(number: i64) -> i32 {
    let limit = if number < 0 { i32::MIN } else { i32::MAX };
    i32::try_from(number).unwrap_or(limit)
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Absent)
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, integer: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(integer))
            }

            fn visit_u64<E>(self, integer: u64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(i64::try_from(integer).unwrap_or(i64::MAX)))
            }

            fn visit_f64<E>(self, decimal: f64) -> Result<Scalar, E> {
                Ok(Scalar::Decimal(decimal))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
#[path = "annotation_lock_tests.rs"]
mod tests;
