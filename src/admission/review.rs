//! The request half of an `AdmissionReview` (`admission.k8s.io/v1`), as the API server sends it.
//!
//! Our own borrowed structs instead of `kube`'s: those flatten, and serde then buffers the whole document. Only
//! what a verdict needs is read; the rest is skipped in place. Field names are those of
//! `k8s.io/api/admission/v1` and `k8s.io/api/coordination/v1`.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};

/// `AdmissionReview` of an object that is read as `O`.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "O: Deserialize<'de>"),
    expecting = "an AdmissionReview"
)]
pub(super) struct Review<'a, O> {
    #[serde(borrow)]
    pub(super) api_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) request: Option<Request<'a, O>>,
}

/// `AdmissionRequest`.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "O: Deserialize<'de>"),
    expecting = "an AdmissionRequest"
)]
pub(super) struct Request<'a, O> {
    #[serde(borrow, default)]
    pub(super) uid: Text<'a>,
    #[serde(borrow, default)]
    pub(super) resource: GroupVersionResource<'a>,
    #[serde(borrow)]
    pub(super) sub_resource: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) operation: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) user_info: Option<UserInfo<'a>>,
    pub(super) object: Option<O>,
    pub(super) old_object: Option<O>,
    pub(super) dry_run: Option<bool>,
    #[serde(borrow)]
    pub(super) options: Option<Options<'a>>,
}

/// `GroupVersionResource`.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a group, version and resource")]
pub(super) struct GroupVersionResource<'a> {
    #[serde(borrow, default)]
    pub(super) group: Text<'a>,
    #[serde(borrow, default)]
    pub(super) version: Text<'a>,
    #[serde(borrow, default)]
    pub(super) resource: Text<'a>,
}

/// `UserInfo`.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a user's name, groups and extra")]
pub(super) struct UserInfo<'a> {
    #[serde(borrow)]
    pub(super) username: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) groups: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) extra: Option<Extra<'a>>,
}

/// `UserInfo.extra`: the pod that a service account's token is bound to.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a map of lists of strings")]
pub(super) struct Extra<'a> {
    #[serde(borrow, rename = "authentication.kubernetes.io/pod-name")]
    pub(super) pod_name: Option<Vec<Text<'a>>>,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions` alike.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "options, such as a fieldManager")]
pub(super) struct Options<'a> {
    #[serde(borrow)]
    pub(super) field_manager: Option<Text<'a>>,
}

/// A `Lease`, or what of another object looks like one.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object with metadata and spec")]
pub(super) struct Object<'a> {
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    pub(super) spec: Option<Spec<'a>>,
}

/// `ObjectMeta`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object's metadata")]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) uid: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) resource_version: Option<Text<'a>>,
    pub(super) creation_timestamp: Option<Instant>,
    pub(super) deletion_timestamp: Option<IgnoredAny>,
    #[serde(borrow)]
    pub(super) labels: Option<Pairs<'a>>,
    #[serde(borrow)]
    pub(super) annotations: Option<Annotations<'a>>,
    #[serde(borrow)]
    pub(super) owner_references: Option<Vec<OwnerReference<'a>>>,
    #[serde(borrow)]
    pub(super) managed_fields: Option<Vec<ManagedFieldsEntry<'a>>>,
}

/// `OwnerReference`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a reference to an owner")]
pub(super) struct OwnerReference<'a> {
    #[serde(borrow)]
    pub(super) api_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
}

/// The annotations that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a map of strings")]
pub(super) struct Annotations<'a> {
    #[serde(borrow, rename = "leasehold.dev/break-glass")]
    pub(super) break_glass: Option<Text<'a>>,
    #[serde(borrow, rename = "leader.istio.io/holder-key")]
    pub(super) istio_holder_key: Option<Text<'a>>,
    /// [`crate::lease::annotation_lock::LEADER_ANNOTATION`].
    #[serde(borrow, rename = "control-plane.alpha.kubernetes.io/leader")]
    pub(super) leader: Option<Text<'a>>,
}

/// `ManagedFieldsEntry`: who, when, and which of the fields that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an entry of managedFields")]
pub(super) struct ManagedFieldsEntry<'a> {
    #[serde(borrow)]
    pub(super) manager: Option<Text<'a>>,
    pub(super) time: Option<Instant>,
    pub(super) fields_v1: Option<Fields>,
}

/// `FieldsV1`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a set of fields")]
pub(super) struct Fields {
    #[serde(rename = "f:spec")]
    pub(super) spec: Option<SpecFields>,
    #[serde(rename = "f:metadata")]
    pub(super) metadata: Option<MetadataFields>,
}

/// The fields of `metadata` that an entry owns.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a set of fields")]
pub(super) struct MetadataFields {
    #[serde(rename = "f:annotations")]
    pub(super) annotations: Option<AnnotationFields>,
}

/// The annotations that an entry owns.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a set of fields")]
pub(super) struct AnnotationFields {
    /// [`crate::lease::annotation_lock::LEADER_ANNOTATION`].
    #[serde(rename = "f:control-plane.alpha.kubernetes.io/leader")]
    pub(super) leader: Option<IgnoredAny>,
}

/// The fields of `spec` that an entry owns.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a set of fields")]
pub(super) struct SpecFields {
    #[serde(rename = "f:holderIdentity")]
    pub(super) holder: Option<IgnoredAny>,
    #[serde(rename = "f:renewTime")]
    pub(super) renew_time: Option<IgnoredAny>,
    #[serde(rename = "f:acquireTime")]
    pub(super) acquire_time: Option<IgnoredAny>,
}

/// `LeaseSpec`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a Lease's spec")]
pub(super) struct Spec<'a> {
    #[serde(borrow)]
    pub(super) holder_identity: Option<Text<'a>>,
    pub(super) lease_duration_seconds: Option<i32>,
    pub(super) acquire_time: Option<Instant>,
    pub(super) renew_time: Option<Instant>,
    pub(super) lease_transitions: Option<i32>,
    #[serde(borrow)]
    pub(super) strategy: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) preferred_holder: Option<Text<'a>>,
}

/// A string, borrowed from the body unless it is written with escapes.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Visitor).map(Self)
    }
}

/// A map of strings, such as labels, in its order.
#[derive(Debug, Default)]
pub(super) struct Pairs<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of strings")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Visitor).map(Self)
    }
}

/// A `Time` or `MicroTime`: an RFC 3339 string in UTC.
///
/// The API server stores years from -1 to 10000 (a client writes 0000 or 9999 and an offset), and prints them with as
/// many digits. What [`Timestamp`] cannot hold of that is its least or its greatest: a review that could not be read
/// for the sake of such a time would be let through by failurePolicy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time such as 2026-11-20T09:30:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse()
                    .ok()
                    .or_else(|| out_of_range(text))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Visitor).map(Self)
    }
}

/// The nearest instant to a time that is well formed and that a [`Timestamp`] cannot hold.
fn out_of_range(text: &str) -> Option<Timestamp> {
    let (before_christ, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (year, rest) = rest.split_once('-')?;
    if !(4..=5).contains(&year.len()) {
        return None;
    }
    let year: i32 = year.parse().ok()?;
    // Any year does to see whether the rest is right; this one has every day that a year can have.
    format!("2000-{rest}").parse::<Timestamp>().ok()?;
    match (before_christ, year) {
        (true, _) => Some(Timestamp::MIN),
        (false, 9999..) => Some(Timestamp::MAX),
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_that_the_api_server_can_print_is_read() {
        let read =
            |text: &str| serde_json::from_str::<Instant>(&format!("{text:?}")).map(|instant| instant.0);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (text, expected) in [
            ("2026-11-20T09:30:00Z", at("2026-11-20T09:30:00Z")),
            ("0000-01-01T00:00:00Z", at("0000-01-01T00:00:00Z")),
            ("-0001-12-31T23:00:00Z", Timestamp::MIN),
            ("9999-12-31T23:59:59.000000Z", Timestamp::MAX),
            ("10000-01-01T00:59:59Z", Timestamp::MAX),
            ("10000-01-01T00:59:59.123456Z", Timestamp::MAX),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "soon",
            "2026-13-20T09:30:00Z",
            "-0001-12-31",
            "10000-13-01T00:59:59Z",
            "1e9-01-01T00:00:00Z",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
