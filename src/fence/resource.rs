//! What is fenced: a resource of the API, as the API server's paths name it.

use std::{fmt, str::FromStr};

use super::names::is_subdomain;

/// A resource, and maybe one of its subresources: `apps/v1/deployments`, `v1/pods/status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    group: String,
    version: String,
    plural: String,
    subresource: Option<String>,
}

/// Why a resource was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResourceError {
    /// Not in the form of a resource, and not a kind that is known.
    #[error(
        "{0:?} is no known kind. Write GROUP/VERSION/PLURAL as in apps/v1/deployments, or VERSION/PLURAL for the core \
         group as in v1/configmaps (kubectl api-resources prints all); known by kind are {known}",
        known = known()
    )]
    UnknownKind(String),
    /// Too many parts, or too few, or no version among them.
    #[error(
        "{0:?} is not GROUP/VERSION/PLURAL[/SUBRESOURCE] as in apps/v1/deployments, or VERSION/PLURAL[/SUBRESOURCE] for the \
         core group as in v1/configmaps"
    )]
    Malformed(String),
    /// A part that cannot be what its place says it is.
    #[error("{text:?}: {part:?} is no {what}: {hint}")]
    Part {
        /// What was given.
        text: String,
        /// The part.
        part: String,
        /// What it should be.
        what: &'static str,
        /// How such a thing looks.
        hint: &'static str,
    },
    /// Leases themselves.
    #[error(
        "{0:?}: a fence around Leases would stop every takeover, since the new holder is not the holder yet. What may happen \
         to a Lease is for leasehold serve, or leasehold export vap"
    )]
    Leases(String),
    /// What no admission policy sees.
    #[error(
        "{0:?}: the API server shows these to no admission policy, so that nobody can lock himself out \
         (k8s.io/apiserver/pkg/admission/plugin/policy); they cannot be fenced"
    )]
    NeverSeen(String),
}

/// Kinds that every cluster has, by kind: group, version, plural.
const KINDS: [(&str, &str, &str, &str); 18] = [
    ("ConfigMap", "", "v1", "configmaps"),
    ("CronJob", "batch", "v1", "cronjobs"),
    ("DaemonSet", "apps", "v1", "daemonsets"),
    ("Deployment", "apps", "v1", "deployments"),
    ("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices"),
    ("Endpoints", "", "v1", "endpoints"),
    ("Ingress", "networking.k8s.io", "v1", "ingresses"),
    ("Job", "batch", "v1", "jobs"),
    ("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    ("Node", "", "v1", "nodes"),
    ("PersistentVolume", "", "v1", "persistentvolumes"),
    ("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims"),
    ("Pod", "", "v1", "pods"),
    ("Role", "rbac.authorization.k8s.io", "v1", "roles"),
    ("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings"),
    ("Secret", "", "v1", "secrets"),
    ("Service", "", "v1", "services"),
    ("StatefulSet", "apps", "v1", "statefulsets"),
];

fn known() -> String {
    KINDS.map(|(kind, ..)| kind).join(", ")
}

/// Subresources that are read and written as the whole object; others (`scale`, `eviction`, `binding`) are objects of
/// their own, without the labels of the one that they belong to.
const WITH_LABELS: [&str; 5] = ["approval", "ephemeralcontainers", "finalize", "resize", "status"];

impl Resource {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The version within the group.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The resource as a rule of admission names it: the plural, and the subresource after a slash.
    pub fn path(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.plural),
            None => self.plural.clone(),
        }
    }

    /// Whether the API server shows it with the labels of the object.
    pub fn carries_labels(&self) -> bool {
        self.subresource
            .as_deref()
            .is_none_or(|subresource| WITH_LABELS.contains(&subresource))
    }

    fn new(
        text: &str,
        group: &str,
        version: &str,
        plural: &str,
        subresource: Option<&str>,
    ) -> Result<Self, ResourceError> {
        let part = |part: &str, good: bool, what, hint| {
            if good {
                return Ok(part.to_owned());
            }
            Err(ResourceError::Part {
                text: text.to_owned(),
                part: part.to_owned(),
                what,
                hint,
            })
        };
        let lower = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let resource = Self {
            group: part(
                group,
                group.is_empty() || is_subdomain(group),
                "API group",
                "lower-case, as in apps or networking.k8s.io",
            )?,
            version: part(
                version,
                is_version(version),
                "version",
                "it looks like v1 or v1beta2",
            )?,
            plural: part(
                plural,
                lower(plural),
                "resource",
                "it is the plural, in lower case and without wildcards, as in configmaps",
            )?,
            subresource: subresource
                .map(|subresource| {
                    part(
                        subresource,
                        lower(subresource),
                        "subresource",
                        "it is in lower case and without wildcards, as in status",
                    )
                })
                .transpose()?,
        };
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("coordination.k8s.io", "leases") => Err(ResourceError::Leases(text.to_owned())),
            ("admissionregistration.k8s.io", _) => Err(ResourceError::NeverSeen(text.to_owned())),
            _ => Ok(resource),
        }
    }
}

/// Whether a text is a version of an API (`k8s.io/apimachinery/pkg/version`: `kubeVersionRegex`).
fn is_version(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = text.strip_prefix('v') else {
        return false;
    };
    ["alpha", "beta"]
        .into_iter()
        .find_map(|stage| rest.split_once(stage))
        .map_or_else(|| number(rest), |(major, minor)| number(major) && number(minor))
}

impl FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let parts: Vec<&str> = text.split('/').collect();
        match *parts.as_slice() {
            [kind] => {
                let known = KINDS.iter().find(|(known, _, _, plural)| {
                    known.eq_ignore_ascii_case(kind) || plural.eq_ignore_ascii_case(kind)
                });
                let (_, group, version, plural) =
                    known.ok_or_else(|| ResourceError::UnknownKind(text.to_owned()))?;
                Self::new(text, group, version, plural, None)
            }
            [version, plural] if is_version(version) => Self::new(text, "", version, plural, None),
            [version, plural, subresource] if is_version(version) => {
                Self::new(text, "", version, plural, Some(subresource))
            }
            [group, version, plural] => Self::new(text, group, version, plural, None),
            [group, version, plural, subresource] => {
                Self::new(text, group, version, plural, Some(subresource))
            }
            _ => Err(ResourceError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{}/{}", self.version, self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_read_as_their_paths_or_as_known_kinds() {
        for (text, expected) in [
            ("v1/configmaps", "v1/configmaps"),
            ("ConfigMap", "v1/configmaps"),
            ("configmaps", "v1/configmaps"),
            ("deployment", "apps/v1/deployments"),
            ("apps/v1/deployments/scale", "apps/v1/deployments/scale"),
            ("v1/pods/status", "v1/pods/status"),
            ("example.com/v1alpha1/widgets", "example.com/v1alpha1/widgets"),
        ] {
            let resource: Resource = text.parse().unwrap();
            assert_eq!(resource.to_string(), expected);
            assert_eq!(resource.to_string().parse(), Ok(resource));
        }
    }

    #[test]
    fn what_is_no_resource_is_refused_with_what_would_be_one() {
        for (text, expected) in [
            (
                "Widget",
                "\"Widget\" is no known kind. Write GROUP/VERSION/PLURAL",
            ),
            ("", "\"\" is no known kind"),
            ("apps/deployments", "is not GROUP/VERSION/PLURAL"),
            ("a/v1/b/c/d", "is not GROUP/VERSION/PLURAL"),
            (
                "apps/v1/Deployment",
                "\"Deployment\" is no resource: it is the plural",
            ),
            ("apps/v1/*", "\"*\" is no resource"),
            ("v1/pods/*", "\"*\" is no subresource"),
            ("apps/1/deployments", "\"1\" is no version"),
            ("Apps/v1/deployments", "\"Apps\" is no API group"),
            ("apps\"/v1/deployments", "is no API group"),
            ("coordination.k8s.io/v1/leases", "would stop every takeover"),
            (
                "admissionregistration.k8s.io/v1/validatingadmissionpolicies",
                "cannot be fenced",
            ),
        ] {
            let error = text.parse::<Resource>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
