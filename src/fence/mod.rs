//! Fencing: the leader that works on after it lost its lease, stopped at the API server.
//!
//! No elector can stop a process that was paused and goes on as if it still led: it does not know. The API server
//! does, where that process writes to the API. A [`Fence`] is a ValidatingAdmissionPolicy that takes a Lease for its
//! parameter, and lets only the pod that holds it write certain objects.
//!
//! Whose pod writes is told by the API server itself, from the token that is bound to the pod. Who holds the lease is
//! told by the API server's own copy of it, which follows by a watch: some milliseconds late, as a rule. When a lease
//! expires is told by less: the API server takes the stamps (`managedFields`) off the parameters that it shows
//! (`k8s.io/kubernetes/pkg/controlplane/apiserver`, since some version after 1.30), and CEL has no clock. What is left
//! is `spec.renewTime`, by the holder's clock, against the stamp that the API server puts on the very write that is
//! judged.
//!
//! Pure: no I/O, no clock, no Kubernetes client.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod expressions;
mod manifest;
mod names;
mod resource;
mod selector;

pub use manifest::{ANCHOR, Manifest, anchor};
pub use names::{NameError, NamespaceName, NamespacedName, ObjectName, SubdomainName};
pub use resource::{Resource, ResourceError};
pub use selector::{Selector, SelectorError};

use self::manifest::DELETE;
use crate::policy::{BreakGlassSettings, Seconds};

/// What becomes of a write while nobody leads, by what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nobody {
    /// It is refused.
    #[default]
    Deny,
    /// It passes.
    Allow,
}

/// What becomes of a write that is not the leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It passes, and the API server's audit log tells of it.
    #[default]
    Audit,
    /// It is refused.
    Enforce,
}

/// Where the objects are that are fenced. Objects that belong to no namespace are fenced either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// In every namespace.
    All,
    /// In these.
    Named(Vec<NamespaceName>),
}

/// A Lease, and the objects that only its holder's pod may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The name of the policy and, but for a suffix, of its bindings.
    pub name: SubdomainName,
    /// The Lease.
    pub lease: NamespacedName,
    /// The resources that are fenced.
    pub resources: Vec<Resource>,
    /// The namespaces in which they are.
    pub namespaces: Namespaces,
    /// The names of the objects that are fenced; all where there are none.
    pub names: Vec<ObjectName>,
    /// The labels of the objects that are fenced, before or after the write; all where there is none.
    pub selector: Option<Selector>,
    /// The namespace of the pods that are elected.
    pub pod_namespace: NamespaceName,
    /// The service accounts whose writes are looked at; everybody's where there are none.
    pub only_service_accounts: Vec<NamespacedName>,
    /// What becomes of a write while nobody holds the lease, or while the Lease does not exist.
    pub when_free: Nobody,
    /// What becomes of the holder's own write when its lease has expired, as far as can be told.
    pub when_expired: Nobody,
    /// Whether writes are refused, or only told of.
    pub enforcement: Enforcement,
    /// How far the holder's clock may be behind before its lease looks expired.
    pub max_skew: Seconds,
    /// Who may write in spite of the fence.
    pub break_glass: BreakGlassSettings,
}

/// Why a fence was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FenceError {
    /// A selector and a subresource that is an object of its own.
    #[error(
        "--selector with --resource {0}: the API server shows that subresource as an object without labels, so that no \
         selector sees it; give the objects by --name, or fence the subresource by itself"
    )]
    NoLabels(Resource),
    /// A name that is too long.
    #[error("the fence's name would be {0:?}: {1}; give another with --fence-name")]
    Name(String, NameError),
}

impl Fence {
    /// The name of a lease's fence, unless it is given.
    ///
    /// # Errors
    /// Where it would be too long.
    pub fn default_name(lease: &NamespacedName) -> Result<SubdomainName, FenceError> {
        let name = format!("leasehold-fence-{}-{}", lease.namespace, lease.name);
        name.parse().map_err(|error| FenceError::Name(name, error))
    }

    /// Whether the parts fit together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), FenceError> {
        let longest = format!("{}{DELETE}", self.name);
        if let Err(error) = longest.parse::<SubdomainName>() {
            return Err(FenceError::Name(longest, error));
        }
        let unseen = self.resources.iter().find(|resource| !resource.carries_labels());
        match unseen {
            Some(resource) if self.selector.is_some() => Err(FenceError::NoLabels(resource.clone())),
            _ => Ok(()),
        }
    }

    /// What the policy does, for whoever reads it.
    fn comment(&self) -> String {
        let mut lines = vec![format!(
            "Only the pod that holds Lease {} may write these objects. A leader that works on after it lost the lease,",
            self.lease
        )];
        lines.push(
            "paused and resumed for one, is stopped here; what it does outside of the API server is not."
                .to_owned(),
        );
        lines.push(match self.enforcement {
            Enforcement::Audit => {
                "Mode audit: nothing is refused; the API server's audit log tells what would be, in the annotation\n\
                 validation.policy.admission.k8s.io/validation_failure. While something cannot be judged, nothing is said."
                    .to_owned()
            }
            Enforcement::Enforce => {
                "Mode enforce: others get 403 Forbidden. What cannot be judged is refused, too.".to_owned()
            }
        });
        lines.push(
            "The API server follows the Lease by a watch: for some milliseconds after a takeover it judges by the old holder."
                .to_owned(),
        );
        lines.push(format!(
            "Needed once in the cluster, and for good: leasehold fence --anchor | kubectl apply -f -   ({ANCHOR})"
        ));
        lines.join("\n")
    }
}
