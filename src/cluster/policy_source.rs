//! What each observation of the policy ConfigMap means. Pure: no client, no clock, no metrics.
//!
//! Invariant: nothing that is observed takes a policy out of force. A policy is only ever replaced by another good
//! one; everything else changes what the status says.

use std::fmt;

use crate::policy::{Policy, PolicyError};

use super::NamespacedName;

/// The key of the ConfigMap's data that holds the policy document.
pub const POLICY_KEY: &str = "policy.yaml";

/// What the watch saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation<'a> {
    /// The ConfigMap is there.
    Present {
        /// Its `metadata.resourceVersion`.
        resource_version: &'a str,
        /// The value of its [`POLICY_KEY`], if it has that key.
        document: Option<&'a str>,
    },
    /// There is no such ConfigMap (never was, or it was deleted).
    Absent,
    /// The API server could not be asked, or would not answer.
    Unreachable {
        /// Why, for people.
        reason: &'a str,
    },
}

/// What an observation leads to.
#[derive(Debug)]
pub enum Decision {
    /// A good policy, other than the last: put it into force.
    Load(Box<Policy>),
    /// A document that is not a policy: tell it; what is in force stays.
    Refuse(PolicyError),
    /// The ConfigMap or its key went away: tell it; what is in force stays.
    Miss,
    /// The API server went away: tell it; what is in force stays.
    Lose,
    /// The API server is back, and the ConfigMap is as it was when last seen.
    Regain,
    /// Nothing that was not known: keep quiet.
    Ignore,
}

/// What stands in the ConfigMap, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Content {
    /// Not seen yet.
    #[default]
    Unknown,
    /// The policy in force.
    Good,
    /// A document that was refused.
    Bad {
        resource_version: String,
        message: String,
    },
    /// A ConfigMap without the key.
    NoKey { resource_version: String },
    /// No ConfigMap.
    Absent,
}

/// Where the policy comes from and how that stands, for readiness and for people (its `Display` is one sentence or
/// two, and names what to do).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    name: NamespacedName,
    /// `metadata.resourceVersion` of the ConfigMap whose policy is in force.
    in_force: Option<String>,
    content: Content,
    unreachable: Option<String>,
}

impl PolicyStatus {
    /// Nothing was seen yet.
    pub fn new(name: NamespacedName) -> Self {
        Self {
            name,
            in_force: None,
            content: Content::Unknown,
            unreachable: None,
        }
    }

    /// Whether a policy was ever loaded. Once true it stays true: this is what readiness hangs on.
    pub fn is_loaded(&self) -> bool {
        self.in_force.is_some()
    }

    /// Whether what stands in the ConfigMap is what is in force, and the API server answers.
    pub fn is_healthy(&self) -> bool {
        self.content == Content::Good && self.unreachable.is_none()
    }

    /// The `metadata.resourceVersion` of the ConfigMap whose policy is in force.
    pub fn resource_version(&self) -> Option<&str> {
        self.in_force.as_deref()
    }
}

impl fmt::Display for PolicyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            in_force,
            content,
            unreachable,
        } = self;
        match in_force {
            Some(version) => write!(
                f,
                "policy of ConfigMap {name}, resourceVersion {version}, is in force"
            )?,
            None => write!(f, "no policy was loaded yet from ConfigMap {name}")?,
        }
        match content {
            Content::Good | Content::Unknown => {}
            Content::Bad {
                resource_version,
                message,
            } => {
                write!(f, "; resourceVersion {resource_version} was refused: {message}")?;
            }
            Content::NoKey { resource_version } => {
                write!(
                    f,
                    "; resourceVersion {resource_version} has no key \"{POLICY_KEY}\": add it"
                )?;
            }
            Content::Absent => write!(f, "; the ConfigMap does not exist: create it")?,
        }
        match unreachable {
            Some(reason) => write!(f, "; the API server cannot be asked, trying on: {reason}"),
            None => Ok(()),
        }
    }
}

/// Remembers what was seen, and decides what the next observation means.
#[derive(Clone, Debug)]
pub struct PolicySource {
    status: PolicyStatus,
    /// The last document that was judged, good or bad, so that the same one is not judged (and told of) again after
    /// each relist or label edit. The API server bounds a ConfigMap to 1 MiB.
    document: Option<String>,
}

impl PolicySource {
    /// Nothing was seen yet.
    pub fn new(name: NamespacedName) -> Self {
        Self {
            status: PolicyStatus::new(name),
            document: None,
        }
    }

    /// How things stand after the last observation.
    pub fn status(&self) -> &PolicyStatus {
        &self.status
    }

    /// Takes an observation in.
    pub fn observe(&mut self, observation: Observation<'_>) -> Decision {
        let (resource_version, document) = match observation {
            Observation::Present {
                resource_version,
                document,
            } => (resource_version, document),
            Observation::Absent => return self.missing(Content::Absent),
            Observation::Unreachable { reason } => return self.lost(reason),
        };
        match document {
            Some(document) => self.judge(resource_version, document),
            None => self.missing(Content::NoKey {
                resource_version: resource_version.to_owned(),
            }),
        }
    }

    fn judge(&mut self, resource_version: &str, document: &str) -> Decision {
        let regained = self.status.unreachable.take().is_some();
        if self.document.as_deref() == Some(document) {
            return self.seen_again(resource_version, regained);
        }
        self.document = Some(document.to_owned());
        match Policy::parse(document) {
            Ok(policy) => {
                self.status.in_force = Some(resource_version.to_owned());
                self.status.content = Content::Good;
                Decision::Load(Box::new(policy))
            }
            Err(error) => {
                let resource_version = resource_version.to_owned();
                self.status.content = Content::Bad {
                    resource_version,
                    message: error.to_string(),
                };
                Decision::Refuse(error)
            }
        }
    }

    /// The document that was judged last, at whatever resourceVersion it now stands.
    fn seen_again(&mut self, version: &str, regained: bool) -> Decision {
        match &mut self.status.content {
            Content::Bad { resource_version, .. } => version.clone_into(resource_version),
            _ => self.status.in_force = Some(version.to_owned()),
        }
        if regained {
            Decision::Regain
        } else {
            Decision::Ignore
        }
    }

    fn missing(&mut self, content: Content) -> Decision {
        let regained = self.status.unreachable.take().is_some();
        let known = std::mem::discriminant(&self.status.content) == std::mem::discriminant(&content);
        self.status.content = content;
        // Whatever comes back is judged and told of anew, even if it is what was there before.
        self.document = None;
        match (known, regained) {
            (false, _) => Decision::Miss,
            (true, true) => Decision::Regain,
            (true, false) => Decision::Ignore,
        }
    }

    fn lost(&mut self, reason: &str) -> Decision {
        let known = self.status.unreachable.replace(reason.to_owned()).is_some();
        if known { Decision::Ignore } else { Decision::Lose }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str = "mode: nonsense";

    fn mk_source() -> PolicySource {
        PolicySource::new("system/policy".parse().unwrap())
    }

    fn present<'a>(resource_version: &'a str, document: &'a str) -> Observation<'a> {
        Observation::Present {
            resource_version,
            document: Some(document),
        }
    }

    const NO_KEY: Observation<'_> = Observation::Present {
        resource_version: "9",
        document: None,
    };
    const UNREACHABLE: Observation<'_> = Observation::Unreachable {
        reason: "connection refused",
    };

    /// Feeds the observations, and returns the decisions by name.
    fn decisions(source: &mut PolicySource, observations: &[Observation<'_>]) -> Vec<String> {
        let name = |decision| match decision {
            Decision::Load(_) => "load".to_owned(),
            Decision::Refuse(_) => "refuse".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        observations
            .iter()
            .map(|&each| name(source.observe(each)))
            .collect()
    }

    #[test]
    fn each_change_is_decided_once() {
        let cases: &[(&str, &[Observation<'_>], &[&str])] = &[
            ("a first good policy is loaded", &[present("1", "")], &["load"]),
            (
                "the same document seen again, after a relist or a label edit, is no news",
                &[present("1", ""), present("1", ""), present("2", "")],
                &["load", "ignore", "ignore"],
            ),
            (
                "each other document is loaded",
                &[present("1", ""), present("2", "mode: audit")],
                &["load", "load"],
            ),
            (
                "a bad document is told once, and its repair is loaded, be it the last good one",
                &[
                    present("1", ""),
                    present("2", BAD),
                    present("3", BAD),
                    present("4", ""),
                ],
                &["load", "refuse", "ignore", "load"],
            ),
            (
                "a bad first document is refused",
                &[present("1", BAD), present("2", "")],
                &["refuse", "load"],
            ),
            (
                "a deleted ConfigMap is told once, and what comes back is loaded",
                &[
                    present("1", ""),
                    Observation::Absent,
                    Observation::Absent,
                    present("2", ""),
                ],
                &["load", "miss", "ignore", "load"],
            ),
            (
                "a missing key is told once, and apart from a missing ConfigMap",
                &[present("1", ""), NO_KEY, NO_KEY, Observation::Absent],
                &["load", "miss", "ignore", "miss"],
            ),
            (
                "a lost API server is told once, and its return too",
                &[
                    present("1", ""),
                    UNREACHABLE,
                    UNREACHABLE,
                    present("1", ""),
                    present("1", ""),
                ],
                &["load", "lose", "ignore", "regain", "ignore"],
            ),
            (
                "an edit that was made while the API server was lost is loaded",
                &[present("1", ""), UNREACHABLE, present("2", "mode: audit")],
                &["load", "lose", "load"],
            ),
            (
                "a ConfigMap that is still missing when the API server is back",
                &[Observation::Absent, UNREACHABLE, Observation::Absent],
                &["miss", "lose", "regain"],
            ),
            (
                "an API server that is down at the start",
                &[UNREACHABLE, present("1", "")],
                &["lose", "load"],
            ),
        ];
        for (name, observations, expected) in cases {
            assert_eq!(&decisions(&mut mk_source(), observations), expected, "{name}");
        }
    }

    #[test]
    fn once_loaded_nothing_makes_it_unloaded() {
        let mut source = mk_source();
        assert!(!source.status().is_loaded());
        source.observe(present("1", ""));
        for observation in [present("2", BAD), NO_KEY, Observation::Absent, UNREACHABLE] {
            source.observe(observation);
            assert!(source.status().is_loaded(), "{observation:?}");
            assert!(!source.status().is_healthy(), "{observation:?}");
            assert_eq!(source.status().resource_version(), Some("1"), "{observation:?}");
        }
    }

    #[test]
    fn nothing_but_a_good_policy_makes_it_loaded() {
        let mut source = mk_source();
        for observation in [UNREACHABLE, Observation::Absent, NO_KEY, present("2", BAD)] {
            source.observe(observation);
            assert!(!source.status().is_loaded(), "{observation:?}");
        }
    }

    #[test]
    fn an_unchanged_policy_moves_along_with_the_resource_version() {
        let mut source = mk_source();
        source.observe(present("1", ""));
        source.observe(present("2", ""));
        assert_eq!(source.status().resource_version(), Some("2"));
        source.observe(present("3", BAD));
        source.observe(present("4", BAD));
        assert_eq!(
            source.status().resource_version(),
            Some("2"),
            "the refused one is not in force"
        );
        assert!(
            source
                .status()
                .to_string()
                .contains("resourceVersion 4 was refused"),
            "{}",
            source.status()
        );
    }

    #[test]
    fn the_status_says_what_is_in_force_what_is_wrong_and_what_to_do() {
        let mut source = mk_source();
        assert_eq!(
            source.status().to_string(),
            "no policy was loaded yet from ConfigMap system/policy"
        );
        source.observe(Observation::Absent);
        assert_eq!(
            source.status().to_string(),
            "no policy was loaded yet from ConfigMap system/policy; the ConfigMap does not exist: create it"
        );
        source.observe(present("7", ""));
        source.observe(present("8", BAD));
        let refused = source.status().to_string();
        let expected = "policy of ConfigMap system/policy, resourceVersion 7, is in force; resourceVersion 8 was refused: ";
        assert!(refused.starts_with(expected), "{refused}");
        assert!(
            refused.len() > expected.len(),
            "with the parser's message: {refused}"
        );
        source.observe(NO_KEY);
        source.observe(UNREACHABLE);
        assert_eq!(
            source.status().to_string(),
            "policy of ConfigMap system/policy, resourceVersion 7, is in force; resourceVersion 9 has no key \"policy.yaml\": add it; the API server cannot be asked, trying on: connection refused"
        );
    }
}
