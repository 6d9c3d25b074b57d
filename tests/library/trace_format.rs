//! A trace: what one elector writes, or another use of a Lease, step by step, and what the guard must answer. Written by
//! hand, in YAML; `tests/data/traces/client-go.yaml` is the one to read first, and `tests/data/uses/terraform.yaml`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// What a trace plays: who writes what to which lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) writers: &'a BTreeMap<String, Writer>,
    pub(crate) steps: &'a [Step],
}

/// A use of a Lease that elects nobody by time, or elects in its own way, and what people should know of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Use {
    /// The program, and what it uses the lease for.
    #[serde(rename = "use")]
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// What was read, and where.
    pub(crate) source: String,
    /// Which fields it writes, how, and who takes over when.
    pub(crate) writes: String,
    /// What its record is for, as Leasehold reads it: `timed`, `counted`, `beating` or `untimed`.
    pub(crate) purpose: String,
    /// What people may do, if anything.
    pub(crate) advice: Option<String>,
    /// What becomes of it in mode enforce. Stated where something is denied, and only there.
    pub(crate) in_enforce: Option<String>,
    /// Where retrying does not help it there: a policy under which nothing of it is denied.
    pub(crate) remedy: Option<String>,
    #[serde(default)]
    pub(crate) lease: Lease,
    pub(crate) writers: BTreeMap<String, Writer>,
    pub(crate) steps: Vec<Step>,
}

/// What kind of use it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Held until its holder lets it go. Nothing expires.
    LockUntilReleased,
    /// The holder is a value: a revision, a role, a progress.
    StatusBoard,
    /// Who takes over looks whether the holder's object lives.
    Claim,
    /// Says that somebody lives. Nobody else wants it.
    Heartbeat,
    /// Taken over once it has expired, and rarely renewed.
    LockWithExpiry,
    /// A third party decides who holds it.
    Assignment,
    /// An election with habits of its own.
    Election,
    /// What happens to a lease beside its elector.
    Incident,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 8] = [
        Self::LockUntilReleased,
        Self::StatusBoard,
        Self::Claim,
        Self::Heartbeat,
        Self::LockWithExpiry,
        Self::Assignment,
        Self::Election,
        Self::Incident,
    ];

    /// As the table says it.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::LockUntilReleased => "lock until released",
            Self::StatusBoard => "status board",
            Self::Claim => "claim by liveness",
            Self::Heartbeat => "heartbeat",
            Self::LockWithExpiry => "lock with expiry",
            Self::Assignment => "assignment by a third party",
            Self::Election => "election",
            Self::Incident => "beside an elector",
        }
    }
}

/// One elector's trace, and what people should know of that elector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Trace {
    /// The elector's name.
    pub(crate) elector: String,
    /// The versions that write so.
    pub(crate) version: String,
    /// Who is built on it.
    pub(crate) used_by: Option<String>,
    /// Where it is known from: its source, a measurement, a thread.
    pub(crate) source: String,
    /// What it does wrong. Absent for a correct elector, whose trace holds no denial.
    pub(crate) wrong: Option<String>,
    /// What becomes of it in mode enforce. Stated where something is denied, and only there.
    pub(crate) in_enforce: Option<String>,
    /// Where retrying does not help it there, so that people must act before they enforce: a policy under which it works.
    pub(crate) remedy: Option<String>,
    /// What of an elector's life it has not, and why. Everything else is among the steps.
    #[serde(default)]
    pub(crate) never: BTreeMap<Phase, String>,
    /// The trace, by its file's name, of the same elector that shows what is neither here nor in `never`: for traces of one
    /// flaw, or of one way to configure it.
    pub(crate) rest: Option<String>,
    #[serde(default)]
    pub(crate) lease: Lease,
    /// Everybody who writes, by a short name.
    pub(crate) writers: BTreeMap<String, Writer>,
    pub(crate) steps: Vec<Step>,
}

/// A part of an elector's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It makes the lease.
    Create,
    /// It goes on holding it.
    Renew,
    /// It takes the lease from another holder, who loses it.
    Takeover,
    /// It lets the lease go.
    Release,
    /// It takes what was released.
    Acquire,
    /// It comes back after its process ended, in the same pod or by the same identity.
    Restart,
}

impl Phase {
    /// Every phase.
    pub(crate) const ALL: [Self; 6] = [
        Self::Create,
        Self::Renew,
        Self::Takeover,
        Self::Release,
        Self::Acquire,
        Self::Restart,
    ];
}

/// Which lease the trace is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The entries of its `metadata.ownerReferences`, which it has from its creation on.
    #[serde(default)]
    pub(crate) owners: Vec<Owner>,
}

/// An object that owns the lease.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            namespace: "shop".into(),
            name: "payments".into(),
            owners: Vec::new(),
        }
    }
}

/// Somebody who writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Writer {
    /// What `me` stands for in `holderIdentity`.
    pub(crate) identity: Option<String>,
    /// The pod that its token is bound to.
    pub(crate) pod: Option<String>,
    /// Its user; by default the service account `default` of the lease's namespace.
    pub(crate) user: Option<String>,
    /// The field manager that it names in its requests.
    pub(crate) field_manager: Option<String>,
    /// What stands for a field manager that is not named: the user agent, up to the slash.
    #[serde(default = "elector")]
    pub(crate) user_agent: String,
    /// How many seconds its clock is ahead of the API server's.
    #[serde(default)]
    pub(crate) clock: i64,
}

fn elector() -> String {
    "elector".into()
}

/// One write. A step without `deny`, `warn` and `audit` passes in silence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Seconds after the beginning, by the API server's clock.
    pub(crate) at: f64,
    /// Who writes.
    pub(crate) by: String,
    #[serde(default)]
    pub(crate) verb: Verb,
    /// What kind of change it is: `create`, `renew`, `takeover` and so on.
    pub(crate) change: String,
    /// Which part of its elector's life it is, where `change` does not say that: `restart`, or a release in a spelling of
    /// its own.
    pub(crate) phase: Option<Phase>,
    /// False for a write that nobody judged: from before Leasehold came, or while no replica answered.
    #[serde(default = "yes")]
    pub(crate) guarded: bool,
    /// Fields merged into `spec`; null removes one. `holderIdentity: me` is the writer's identity, and the times are
    /// `now`, `now-10s` or `now+10s` by the writer's clock, or written out.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Null removes one.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, Option<String>>,
    /// The rules that must deny it.
    #[serde(default)]
    pub(crate) deny: Vec<String>,
    /// The rules that must warn.
    #[serde(default)]
    pub(crate) warn: Vec<String>,
    /// The rules that must only tell the audit log.
    #[serde(default)]
    pub(crate) audit: Vec<String>,
    /// The profile that the write must be recognised by.
    pub(crate) profile: Option<String>,
}

fn yes() -> bool {
    true
}

/// How a write is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    /// POST.
    Create,
    /// PUT.
    #[default]
    Update,
    /// PATCH, other than an apply.
    Patch,
    /// Server-side apply.
    Apply,
    /// DELETE.
    Delete,
}

impl Trace {
    pub(crate) fn script(&self) -> Script<'_> {
        Script {
            lease: &self.lease,
            writers: &self.writers,
            steps: &self.steps,
        }
    }
}

impl Use {
    pub(crate) fn script(&self) -> Script<'_> {
        Script {
            lease: &self.lease,
            writers: &self.writers,
            steps: &self.steps,
        }
    }
}

/// Every elector's trace, by file name.
pub(crate) fn all() -> Vec<(String, Trace)> {
    read("traces")
}

/// Every other use, by file name.
pub(crate) fn uses() -> Vec<(String, Use)> {
    read("uses")
}

fn read<T: DeserializeOwned>(folder: &str) -> Vec<(String, T)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder);
    let mut traces: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let trace = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            (file, trace)
        })
        .collect();
    traces.sort_by(|(one, _), (other, _)| one.cmp(other));
    traces
}

/// The instant `seconds` after the beginning of every trace.
pub(crate) fn instant(seconds: f64) -> Timestamp {
    const BEGINNING: i64 = 1_795_000_000;
    Timestamp::from_second(BEGINNING).unwrap() + SignedDuration::from_secs_f64(seconds)
}

impl Step {
    /// Which part of its elector's life it is; `None` for one that is none.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.phase.or(match self.change.as_str() {
            "create" => Some(Phase::Create),
            "renew" => Some(Phase::Renew),
            "takeover" => Some(Phase::Takeover),
            "release" => Some(Phase::Release),
            "acquire" => Some(Phase::Acquire),
            _ => None,
        })
    }

    /// A field's value as it goes over the wire.
    pub(crate) fn value(&self, field: &str, writer: &Writer) -> Value {
        let written = &self.set[field];
        match (field, written.as_str()) {
            ("holderIdentity", Some("me")) => writer
                .identity
                .as_deref()
                .unwrap_or_else(|| panic!("{} has no identity to write", self.by))
                .into(),
            ("acquireTime" | "renewTime", Some(time)) => self.time(time, writer).into(),
            _ => written.clone(),
        }
    }

    /// A `MicroTime`, by the writer's clock.
    fn time(&self, written: &str, writer: &Writer) -> String {
        let offset = match written.strip_prefix("now") {
            Some("") => 0,
            Some(offset) => offset
                .strip_suffix('s')
                .and_then(|offset| offset.parse::<i64>().ok())
                .unwrap_or_else(|| panic!("{written:?} is no time such as now-10s")),
            None => {
                let written_out = written.parse::<Timestamp>();
                assert!(
                    written_out.is_ok(),
                    "{written:?} is no time: write now, or now-10s"
                );
                return written.to_owned();
            }
        };
        let time = instant(self.at) + SignedDuration::from_secs(writer.clock + offset);
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }
}
