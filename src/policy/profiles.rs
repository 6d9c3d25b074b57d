//! Writers that are right in their own way, recognised by the shape of their writes.
//!
//! A profile names the writer in the audit record, and lowers what some rules lead to. None of them touches
//! `takeover-before-expiry` by a shape that just anybody could give a write: see [`Row::proof`].

use super::Action;
use crate::lease::{Change, Purpose, Write};

/// A kind of writer with a contract of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Profile(&'static Row);

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The profile's name, as the audit log shows it.
    pub name: &'static str,
    /// Whether a write is of its kind.
    pub recognise: fn(&Write<'_>) -> bool,
    /// The same as CEL: a boolean over `object`, `oldObject`, `request` and the variables of [`super::in_process`], that
    /// binds as tightly as &&.
    pub cel: &'static str,
    /// What the recognition rests on: the API server's word, or only the shape that the client gave its write.
    pub proof: Proof,
    /// The most that a rule leads to for such a write; rules that are not named are not changed.
    pub caps: &'static [(&'static str, Action)],
    /// Where it is written down how these writers write.
    pub source: &'static str,
}

/// What a recognition rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The user's name, by the API server's word.
    User,
    /// The shape of the write, which any client could give it.
    Shape,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Row {}

impl std::hash::Hash for Row {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Profile {
    /// The profile of a write; the first row that recognises it. `None` for most writes.
    pub fn of(write: &Write<'_>) -> Option<Self> {
        PROFILES.iter().find(|row| (row.recognise)(write)).map(Self)
    }

    /// The profile's name, as the audit log shows it.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// What a rule's action comes to for a write of this kind.
    pub fn cap(self, rule: &str, action: Action) -> Action {
        let cap = self.0.caps.iter().find(|(name, _)| *name == rule);
        cap.map_or(action, |(_, cap)| action.min(*cap))
    }
}

/// The user as whom an API server writes on its own account (observed: its elections and its identity lease).
pub(crate) const API_SERVER: &str = "system:apiserver";

/// Every profile; the first that recognises a write counts, so what is proven stands before what is only shaped.
pub static PROFILES: &[Row] = &[
    // The API server elects: the new holder is written with the number unchanged and without acquireTime; a
    // better candidate gets the lease by a release, so no takeover comes early.
    Row {
        name: "coordinated-leader-election",
        recognise: |write| {
            write.writer.user == API_SERVER
                && (write.new.record.strategy.is_some() || write.old.record.strategy.is_some())
        },
        cel: "\
            request.userInfo.username == 'system:apiserver'
            && (object.?spec.?strategy.orValue('') != ''
            || variables.update && oldObject.?spec.?strategy.orValue('') != '')",
        proof: Proof::User,
        caps: &[
            ("transition-not-counted", Action::Off),
            ("transition-miscounted", Action::Off),
            ("acquire-time-stale", Action::Off),
            ("recreated-early", Action::Off),
        ],
        source: "KEP-4355; k8s.io/kubernetes/pkg/controlplane/controller/leaderelection",
    },
    // Each API server's own lease: an hour long, deleted at its start and stop since 1.35, no transitions ever.
    Row {
        name: "api-server-identity",
        recognise: |write| {
            write.writer.user == API_SERVER
                && [&write.old, &write.new].iter().any(|state| {
                    state
                        .labels
                        .iter()
                        .any(|(key, _)| key == "apiserver.kubernetes.io/identity")
                })
        },
        cel: "\
            request.userInfo.username == 'system:apiserver'
            && ('apiserver.kubernetes.io/identity' in object.metadata.?labels.orValue({})
            || variables.update && 'apiserver.kubernetes.io/identity' in oldObject.metadata.?labels.orValue({}))",
        proof: Proof::User,
        caps: &[
            ("duration-out-of-bounds", Action::Off),
            ("transition-not-counted", Action::Off),
            ("acquire-time-stale", Action::Off),
            ("deleted-while-held", Action::Off),
            ("foreign-release", Action::Off),
            ("foreign-write", Action::Off),
            ("recreated-early", Action::Off),
            ("flapping", Action::Off),
        ],
        source: "KEP-1965; k8s.io/component-helpers/apimachinery/lease",
    },
    // A kubelet's heartbeat: nobody is elected. The garbage collector deletes it with its Node.
    Row {
        name: "node-lease",
        recognise: |write| {
            write.lease.namespace == "kube-node-lease"
                && (write.writer.user.strip_prefix("system:node:") == Some(write.lease.name.as_ref())
                    || (write.change == Change::Delete && is_controller(&write.writer.user)))
        },
        cel: "\
            object.metadata.namespace == 'kube-node-lease'
            && request.userInfo.username == 'system:node:' + object.metadata.name",
        proof: Proof::User,
        caps: &[
            ("duration-out-of-bounds", Action::Off),
            ("transition-not-counted", Action::Off),
            ("acquire-time-stale", Action::Off),
            ("deleted-while-held", Action::Off),
            ("foreign-release", Action::Off),
            ("foreign-write", Action::Off),
            ("recreated-early", Action::Off),
        ],
        source: "KEP-589; k8s.io/kubernetes/pkg/kubelet, k8s.io/component-helpers/apimachinery/lease",
    },
    // Istio's fork of client-go lets the default revision take the lease from a live one of another revision, and a local
    // istiod from a remote one, on purpose: it writes its own revision over the other's. That is all which is excused, and
    // only to istiod's own service account (`istiod`, or `istiod-<revision>`), next to its lease, which has a name of
    // Istio's: they all begin with `istio-`, and some have the revision appended.
    Row {
        name: "istio-priority-lock",
        recognise: |write| {
            write.change == Change::Takeover
                && write.lease.name.starts_with("istio-")
                && write
                    .new
                    .istio_key
                    .as_ref()
                    .is_some_and(|key| !key.is_empty() && write.old.istio_key.as_ref() != Some(key))
                && account_beside(write).is_some_and(is_istiod)
        },
        cel: "\
            object.metadata.name.startsWith('istio-') && variables.takesOver
            && object.metadata.?annotations[?'leader.istio.io/holder-key'].orValue('') != ''
            && object.metadata.?annotations[?'leader.istio.io/holder-key']
            != oldObject.metadata.?annotations[?'leader.istio.io/holder-key']
            && (request.userInfo.username == 'system:serviceaccount:' + object.metadata.namespace + ':istiod'
            || request.userInfo.username.startsWith(
            'system:serviceaccount:' + object.metadata.namespace + ':istiod-')
            && !request.userInfo.username.endsWith(':istiod-'))",
        proof: Proof::User,
        caps: &[
            ("takeover-before-expiry", Action::Audit),
            ("foreign-write", Action::Audit),
        ],
        source: "istio/istio pilot/pkg/leaderelection/leaderelection.go (LocationPrioritizedComparison), \
                 k8sleaderelection/k8sresourcelock/leaselock.go",
    },
    // The Longhorn manager decides which pod serves a volume: it zeroes the times of a share manager's lease, and the next
    // share manager's pod takes it at once, under the name of its node. All of them run as one service account.
    Row {
        name: "longhorn-share-manager",
        recognise: |write| {
            let state = if write.change == Change::Create { &write.new } else { &write.old };
            account_beside(write) == Some("longhorn-service-account")
                && state
                    .owners
                    .iter()
                    .any(|owner| owner.kind == "ShareManager" && owner.api_version.starts_with("longhorn.io/"))
        },
        cel: "\
            request.userInfo.username
            == 'system:serviceaccount:' + object.metadata.namespace + ':longhorn-service-account'
            && (variables.update ? oldObject : object).metadata.?ownerReferences.orValue([]).exists(owner,
            owner.kind == 'ShareManager' && owner.apiVersion.startsWith('longhorn.io/'))",
        proof: Proof::User,
        caps: &[
            ("takeover-before-expiry", Action::Audit),
            ("stamp-tampered", Action::Audit),
            ("foreign-write", Action::Audit),
        ],
        source: "longhorn/longhorn-manager controller/share_manager_controller.go, datastore/kubernetes.go; \
                 longhorn/longhorn-share-manager pkg/server",
    },
    // whereabouts has run with a lease of 1.5 s for years, which client-go writes as 1.
    Row {
        name: "whereabouts",
        recognise: |write| write.lease.name == "whereabouts" && write.new.record.duration_seconds == Some(1),
        cel: "\
            object.metadata.name == 'whereabouts' && variables.newDuration == 1",
        proof: Proof::Shape,
        caps: &[("duration-out-of-bounds", Action::Warn)],
        source: "k8snetworkplumbingwg/whereabouts pkg/types/types.go, pkg/storage/kubernetes/ipam.go",
    },
    // It nulls an expired lease, applies its own holder without counting, and counts in a second write.
    Row {
        name: "kube-lease-manager",
        recognise: |write| {
            write
                .writer
                .field_manager
                .as_deref()
                .is_some_and(|manager| manager.starts_with("kube-lease-manager-"))
        },
        cel: "\
            request.?options.?fieldManager.orValue('').startsWith('kube-lease-manager-')",
        proof: Proof::Shape,
        caps: &[
            ("transition-not-counted", Action::Audit),
            ("transition-miscounted", Action::Off),
            ("acquire-time-stale", Action::Audit),
        ],
        source: "crate kube-lease-manager 0.13, observed",
    },
    // kubert counts when it takes its own expired lease again: the holder stays, acquireTime moves, one more.
    Row {
        name: "same-holder-increment",
        recognise: |write| {
            let (old, new) = (&write.old.record, &write.new.record);
            write.change == Change::Amend
                && new.holder.is_some()
                && old.acquire_time != new.acquire_time
                && new.transitions.map(i64::from) == Some(i64::from(old.transitions_or_zero()) + 1)
        },
        cel: "\
            variables.newHolder != '' && variables.sameHolder
            && object.?spec.?acquireTime != oldObject.?spec.?acquireTime
            && object.?spec.?leaseTransitions.hasValue()
            && variables.newTransitions == variables.oldTransitions + 1",
        proof: Proof::Shape,
        caps: &[("transition-miscounted", Action::Off)],
        source: "crate kubert, lease.rs",
    },
    // kubert reads the count as a 16-bit number: what does not fit is 0 to it, and the next term is 1. Refused, it
    // could never take the lease again.
    Row {
        name: "sixteen-bit-count",
        recognise: |write| {
            write.change.gives_a_new_holder()
                && write.old.record.transitions_or_zero() > i32::from(u16::MAX)
                && write.new.record.transitions == Some(1)
        },
        cel: "\
            variables.givesNewHolder && variables.oldTransitions > 65535 && variables.newTransitions == 1",
        proof: Proof::Shape,
        caps: &[("transition-not-counted", Action::Warn)],
        source: "crate kubert, lease.rs",
    },
    // fabric8 since 6.1, zio-k8s and Bonny let go by a duration of one second, the holder still named.
    Row {
        name: "release-by-duration",
        recognise: |write| write.is_release() && write.change == Change::Amend,
        cel: "\
            variables.change == 'amend' && variables.oldHolder != ''
            && variables.newDuration == 1 && variables.oldDuration > 1",
        proof: Proof::Shape,
        caps: &[],
        source: "fabric8 kubernetes-client LeaseLock, LeaderElector; observed",
    },
    // kubert, the official Java client, Camel, the JavaScript elector: a release that removes the fields.
    Row {
        name: "release-by-nulls",
        recognise: |write| write.change == Change::Release && write.new.record.renew_time.is_none() && elects(write),
        cel: "\
            variables.change == 'release' && !object.?spec.?renewTime.hasValue()
            && variables.purpose in ['timed', 'counted']",
        proof: Proof::Shape,
        caps: &[],
        source: "kubert lease.rs; io.kubernetes client-java LeaderElector; Camel NativeLeaseResourceManager; observed",
    },
    // kubernetes_asyncio, the official Python client, Bonny, the JavaScript elector: nobody ever counts.
    Row {
        name: "untracked",
        recognise: |write| {
            write.change.gives_a_new_holder()
                && write.old.record.transitions.is_none()
                && write.new.record.transitions.is_none()
                && !write.old.record.was_never_held()
                && elects(write)
        },
        cel: "\
            variables.givesNewHolder && !variables.neverHeld
            && !oldObject.?spec.?leaseTransitions.hasValue() && !object.?spec.?leaseTransitions.hasValue()
            && variables.purpose in ['timed', 'counted']",
        proof: Proof::Shape,
        caps: &[],
        source: "kubernetes_asyncio LeaseLock; observed",
    },
];

/// Whether the lease is plainly an election, a heartbeat or a lock with expiry.
fn elects(write: &Write<'_>) -> bool {
    matches!(write.purpose(), Purpose::Timed | Purpose::Counted)
}

/// The name of the writer's service account, where that is one of the lease's own namespace.
fn account_beside<'a>(write: &'a Write<'_>) -> Option<&'a str> {
    write
        .writer
        .user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.strip_prefix(write.lease.namespace.as_ref()))
        .and_then(|rest| rest.strip_prefix(':'))
}

/// Whether a service account's name is `istiod` or `istiod-<revision>` (Istio's chart `istio-control/istio-discovery`).
fn is_istiod(account: &str) -> bool {
    account
        .strip_prefix("istiod")
        .is_some_and(|revision| revision.is_empty() || revision.len() > 1 && revision.starts_with('-'))
}

/// The control plane's own controllers, which delete what belongs to what is gone, and the API server itself.
pub(crate) const CONTROLLERS: [&str; 4] = [
    API_SERVER,
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    // kube-controller-manager without --use-service-account-credentials.
    "system:kube-controller-manager",
];

/// Whether a user is one of them.
pub(crate) fn is_controller(user: &str) -> bool {
    CONTROLLERS.contains(&user)
}

#[cfg(test)]
#[path = "profiles_tests.rs"]
mod tests;
