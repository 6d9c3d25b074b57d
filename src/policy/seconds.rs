//! Durations in the policy, written as people write them: `5s`, `1m30s`, `1h`, `7d`.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration of whole seconds, never negative. Lease durations and the API server's stamps are whole seconds
/// too, so a finer one would promise what cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

/// Why a duration was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a duration: {problem}; write whole seconds, minutes, hours or days, as in 5s, 1m30s, 1h or 7d"
)]
pub struct SecondsError {
    text: String,
    problem: &'static str,
}

impl Seconds {
    /// So many seconds.
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The number of seconds.
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }

    /// As a duration.
    pub fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.get())
    }
}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, SecondsError> {
        let refuse = |problem| SecondsError {
            text: text.to_owned(),
            problem,
        };
        if text.parse::<f64>().is_ok() {
            return Err(refuse("the unit is missing"));
        }
        let duration = read(text).ok_or_else(|| refuse("it cannot be read"))?;
        if duration.is_negative() {
            return Err(refuse("it is negative"));
        }
        if duration.subsec_nanos() != 0 {
            return Err(refuse("it is not a whole number of seconds"));
        }
        u32::try_from(duration.as_secs())
            .map(Self)
            .map_err(|_| refuse("it is too long"))
    }
}

/// Reads days of 24 hours, and what the library reads of the rest.
fn read(text: &str) -> Option<SignedDuration> {
    let Some((days, rest)) = text.split_once('d') else {
        return SignedDuration::from_str(text).ok();
    };
    let days: u32 = days.parse().ok()?;
    let rest = match rest {
        "" => SignedDuration::ZERO,
        rest => SignedDuration::from_str(rest).ok()?,
    };
    SignedDuration::from_hours(24 * i64::from(days)).checked_add(rest)
}

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes, seconds) =
            (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        if days > 0 {
            write!(formatter, "{days}d")?;
        }
        if hours > 0 {
            write!(formatter, "{hours}h")?;
        }
        if minutes > 0 {
            write!(formatter, "{minutes}m")?;
        }
        if seconds > 0 || self.0 == 0 {
            write!(formatter, "{seconds}s")?;
        }
        Ok(())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Whole seconds, minutes, hours or days: 5s, 1m30s, 1h, 7d.",
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
            "minLength": 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        let cases = [
            ("0s", 0),
            ("5s", 5),
            ("90s", 90),
            ("1m30s", 90),
            ("1h", 3600),
            ("2h0m5s", 7205),
            ("7d", 604_800),
            ("1d12h", 129_600),
            ("36h", 129_600),
        ];
        for (text, seconds) in cases {
            assert_eq!(text.parse::<Seconds>().unwrap().get(), seconds, "{text}");
        }
        assert_eq!(
            ["1h", "1m30s", "0s", "59s", "7d", "168h", "36h"]
                .map(|text| text.parse::<Seconds>().unwrap().to_string()),
            ["1h", "1m30s", "0s", "59s", "7d", "7d", "1d12h"]
        );
    }

    #[test]
    fn what_is_no_duration_is_named() {
        let cases = [
            ("5", "the unit is missing"),
            ("1.5", "the unit is missing"),
            ("-5s", "it is negative"),
            ("500ms", "it is not a whole number of seconds"),
            ("five", "it cannot be read"),
            ("d", "it cannot be read"),
            ("7days", "it cannot be read"),
            ("1dd", "it cannot be read"),
            ("1h2d", "it cannot be read"),
            ("99999999999d", "it cannot be read"),
            ("99999d", "it is too long"),
            ("", "it cannot be read"),
            ("2000000h", "it is too long"),
        ];
        for (text, problem) in cases {
            assert_eq!(text.parse::<Seconds>().unwrap_err().problem, problem, "{text}");
        }
    }
}
