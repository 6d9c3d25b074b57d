//! Any write of a lease, and a few that a right elector makes, as requests.

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::leases::{Edit, Verb};

/// What becomes of a field.
#[derive(Clone, Debug)]
enum Field<T> {
    Keep,
    Remove,
    Set(T),
}

/// A time to write.
#[derive(Clone, Debug)]
enum Time {
    /// Milliseconds from now, by a clock that is right.
    FromNow(i64),
    Literal(&'static str),
}

/// What a write does to managedFields.
#[derive(Clone, Debug)]
enum Stamps {
    Echoed,
    Cleared,
    Emptied,
    /// All times set to this one.
    Forged(Time),
    /// An entry more, by a manager of its own, that claims all fields since then.
    Extra(Time),
    /// All times removed.
    Undated,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) who: usize,
    manager: &'static str,
    pub(super) verb: usize,
    pub(super) delete: bool,
    dry_run: bool,
    holder: Field<&'static str>,
    duration: Field<i32>,
    /// From the count before, or a number.
    transitions: Field<Result<i64, i64>>,
    renew_time: Field<Time>,
    acquire_time: Field<Time>,
    label: Field<&'static str>,
    annotation: Field<(&'static str, &'static str)>,
    stamps: Stamps,
}

fn field<T: Clone + std::fmt::Debug + 'static>(
    keep: u32,
    set: u32,
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Field<T>> {
    prop_oneof![
        keep => Just(Field::Keep),
        1 => Just(Field::Remove),
        set => value.prop_map(Field::Set),
    ]
    .boxed()
}

fn a_time(literals: &'static [&'static str]) -> impl Strategy<Value = Time> + 'static {
    prop_oneof![
        12 => Just(Time::FromNow(0)),
        3 => (-8_000..8_000_i64).prop_map(Time::FromNow),
        1 => prop::sample::select(vec![-3_600_000, 3_600_000, -5_000, 5_000, -6_000, 6_000_i64]).prop_map(Time::FromNow),
        1 => prop::sample::select(literals).prop_map(Time::Literal),
    ]
}

/// Around the ends of what can be written, read, and told apart.
const MICRO_TIMES: &[&str] = &[
    "2001-02-03T04:05:06.000007Z",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:01.000000Z",
    "0000-01-01T00:00:00.000000Z",
    "9998-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.000000-01:00",
    "0000-01-01T00:00:00.000000+01:00",
];
const STAMPS: &[&str] = &[
    "2001-02-03T04:05:06Z",
    "1969-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "2099-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "0000-01-01T00:00:00+01:00",
];

/// Its number among those who write.
const ISTIOD: usize = 3;
/// Two pods: the one that a holder is named after, and a sibling.
const PODS: [usize; 2] = [4, 5];
const LONGHORN: usize = 6;

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![14 => Just(0_usize), 2 => Just(1_usize), 2 => Just(2_usize), 2 => Just(ISTIOD),
        3 => Just(PODS[0]), 2 => Just(PODS[1]), 2 => Just(LONGHORN)];
    let manager = prop_oneof![
        5 => Just("a"), 5 => Just("b"), 2 => Just("c"), 1 => Just("kube-lease-manager-a"),
    ];
    let holder = prop_oneof![
        6 => Just("a"),
        6 => Just("b"),
        3 => Just("web-7d4b9c6f5-x2x9k_0b7c"),
        1 => prop::sample::select(vec!["web-7d4b9c6f5-q8w4m", "web-7d4b9c6f5-x2x9k-2", "web-7d4b9c6f5-x2x9k-leader"]),
        2 => Just(""),
        1 => Just("o\"dd\\ \u{e9}ne' {x} %s"),
        1 => Just(LONG),
    ];
    let duration = prop_oneof![
        6 => 1..8_i32,
        2 => prop::sample::select(vec![15, 59, 60, 61, 3599, 3600, 3601, i32::MAX]),
    ];
    let transitions = prop_oneof![
        12 => Just(Ok(1)),
        2 => (-1..3_i64).prop_map(Ok),
        2 => prop::sample::select(vec![0, 1, 2, 70_000, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 2_147_483_647]).prop_map(Err),
    ];
    let stamps = prop_oneof![
        24 => Just(Stamps::Echoed),
        1 => Just(Stamps::Cleared),
        1 => Just(Stamps::Emptied),
        2 => (-8_000..8_000_i64).prop_map(|offset| Stamps::Forged(Time::FromNow(offset))),
        1 => prop::sample::select(STAMPS).prop_map(|time| Stamps::Forged(Time::Literal(time))),
        1 => prop::sample::select(STAMPS).prop_map(|time| Stamps::Extra(Time::Literal(time))),
        1 => (-20_000..20_000_i64).prop_map(|offset| Stamps::Extra(Time::FromNow(offset))),
        1 => Just(Stamps::Undated),
    ];
    let annotation = prop::sample::select(vec![
        ("leasehold.dev/break-glass", "node 7 is lost"),
        ("leasehold.dev/break-glass", " "),
        ("leader.istio.io/holder-key", "default"),
        ("leader.istio.io/holder-key", "canary"),
    ]);
    (
        (
            who,
            manager,
            0..Verb::ALL.len(),
            prop::bool::weighted(0.03),
            prop::bool::weighted(0.1),
        ),
        (
            field(6, 8, holder),
            field(10, 5, duration),
            field(8, 8, transitions),
            field(5, 12, a_time(MICRO_TIMES)),
            field(6, 8, a_time(MICRO_TIMES)),
        ),
        (
            field(16, 3, prop::sample::select(vec!["old-thing", "new"])),
            field(20, 3, annotation),
            stamps,
        ),
    )
        .prop_map(
            |(
                (who, manager, verb, delete, dry_run),
                (holder, duration, transitions, renew_time, acquire_time),
                (label, annotation, stamps),
            )| Step {
                // Istio's elector states its revision with each write.
                annotation: match annotation {
                    Field::Keep if who == ISTIOD => {
                        let revision = if manager == "a" { "default" } else { "canary" };
                        Field::Set(("leader.istio.io/holder-key", revision))
                    }
                    annotation => annotation,
                },
                who,
                manager,
                verb,
                delete,
                dry_run,
                holder,
                duration,
                transitions,
                renew_time,
                acquire_time,
                label,
                stamps,
            },
        )
}

/// Longer than what messages show of an identity.
const LONG: &str = "an-identity-that-nobody-meant-to-be-read-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-end";

impl Time {
    fn micro(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::FromNow(offset) => format!("{:.6}", from_now(*offset)?),
            Self::Literal(time) => (*time).to_owned(),
        })
    }

    fn second(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::FromNow(offset) => format!("{:.0}", from_now(*offset)?),
            Self::Literal(time) => (*time).to_owned(),
        })
    }
}

fn from_now(milliseconds: i64) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::now().checked_add(SignedDuration::from_millis(milliseconds))?)
}

impl Step {
    /// The change of a lease, as it is now. Every request is told apart by a parameter that the API server does not
    /// know and writes to its audit log.
    pub(super) fn edit(&self, lease: Option<&Value>, verb: Verb, tag: usize) -> anyhow::Result<Edit> {
        let is_there = |path: &str| lease.and_then(|lease| lease.pointer(path)).is_some();
        let mut spec = Map::new();
        let before = lease
            .and_then(|lease| lease.pointer("/spec/leaseTransitions"))
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let mut set = |name: &str, field: Field<Value>| {
            match field {
                Field::Set(value) => spec.insert(name.to_owned(), value),
                Field::Remove if verb != Verb::Apply && is_there(&format!("/spec/{name}")) => {
                    spec.insert(name.to_owned(), Value::Null)
                }
                Field::Remove | Field::Keep => None,
            };
        };
        set(
            "holderIdentity",
            self.holder.value(|holder| Ok((*holder).into()))?,
        );
        set(
            "leaseDurationSeconds",
            self.duration.value(|seconds| Ok((*seconds).into()))?,
        );
        set(
            "leaseTransitions",
            self.transitions.value(|count| {
                Ok(match count {
                    Ok(more) => (before + more).clamp(0, i32::MAX.into()).into(),
                    Err(number) => (*number).into(),
                })
            })?,
        );
        set(
            "renewTime",
            self.renew_time.value(|time| Ok(time.micro()?.into()))?,
        );
        set(
            "acquireTime",
            self.acquire_time.value(|time| Ok(time.micro()?.into()))?,
        );
        let mut edit = Edit::spec(&format!("{}&tag={tag}", self.manager), Value::Object(spec));
        edit.dry_run = self.dry_run;
        if let Field::Set(label) = self.label {
            edit.labels.insert("app".to_owned(), label.into());
        }
        if let (Field::Set((name, value)), true) = (&self.annotation, verb != Verb::JsonPatch) {
            edit.annotations.insert((*name).to_owned(), (*value).into());
        }
        let entries = lease.and_then(|lease| lease.pointer("/metadata/managedFields"));
        if let (Some(Value::Array(entries)), true) = (entries, verb != Verb::Apply) {
            edit.managed_fields = self.stamps.of(entries.clone())?;
        }
        Ok(edit)
    }
}

impl<T> Field<T> {
    fn value(&self, of: impl FnOnce(&T) -> anyhow::Result<Value>) -> anyhow::Result<Field<Value>> {
        Ok(match self {
            Self::Keep => Field::Keep,
            Self::Remove => Field::Remove,
            Self::Set(value) => Field::Set(of(value)?),
        })
    }
}

impl Stamps {
    fn of(&self, mut entries: Vec<Value>) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Echoed => return Ok(None),
            Self::Cleared => return Ok(Some(json!([{}]))),
            Self::Emptied => return Ok(Some(json!([]))),
            Self::Forged(time) => {
                for entry in &mut entries {
                    entry["time"] = time.second()?.into();
                }
            }
            Self::Extra(time) => {
                let mut extra = entries.first().cloned().context("no entries")?;
                extra["manager"] = "forger".into();
                extra["operation"] = "Update".into();
                extra["time"] = time.second()?.into();
                extra["fieldsV1"]["f:spec"] =
                    json!({"f:holderIdentity": {}, "f:renewTime": {}, "f:acquireTime": {}});
                entries.push(extra);
            }
            Self::Undated => {
                for entry in &mut entries {
                    if let Some(entry) = entry.as_object_mut() {
                        entry.remove("time");
                    }
                }
            }
        }
        Ok(Some(Value::from(entries)))
    }
}
