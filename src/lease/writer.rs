//! Who writes, and whether that is the holder.

use std::borrow::Cow;

/// Who makes a write, by the API server's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer<'a> {
    /// The user's name.
    pub user: Cow<'a, str>,
    /// The user's groups.
    pub groups: Vec<Cow<'a, str>>,
    /// The pod that the user's token is bound to; `None` for other credentials.
    pub pod: Option<Cow<'a, str>>,
    /// The field manager that the write names; `None` where it names none.
    pub field_manager: Option<Cow<'a, str>>,
}

/// Whether a write comes from the pod that an identity names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// The writer is the one that the identity names.
    Own,
    /// The writer is provably another.
    Foreign,
    /// Nothing proves either.
    CannotTell,
}

impl Ownership {
    /// The ownership's name in logs and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Foreign => "foreign",
            Self::CannotTell => "cannotTell",
        }
    }
}

impl Writer<'_> {
    /// Whether this writer would go by `identity`: its pod's name or its field manager's carries it.
    pub fn goes_by(&self, identity: &str) -> bool {
        self.pod
            .as_deref()
            .is_some_and(|pod| by_pod(pod, identity) == Ownership::Own)
            || self
                .field_manager
                .as_deref()
                .is_some_and(|manager| carries(manager, identity))
    }

    /// Whether this writer is the one that `identity` names.
    ///
    /// By the pod that the writer's token is bound to, against the forms in which electors make identities:
    ///
    /// | identity | who makes it so | leads to |
    /// |---|---|---|
    /// | `pod_uuid` | client-go's convention `hostname_uuid`: `k8s.io/kubernetes/cmd/kube-controller-manager/app/controllermanager.go`, `cmd/kube-scheduler/app/options/options.go`, OpenShift's `library-go/pkg/config/leaderelection` | *own* to that pod, *foreign* to its siblings |
    /// | `pod-hash_uuid` | the same in a Deployment's pod, as most are: `sigs.k8s.io/controller-runtime/pkg/leaderelection/leader_election.go` | *own* to that pod, *foreign* to its siblings of the same and of any other ReplicaSet |
    /// | plain pod name | Istio (`pilot/pkg/bootstrap`, `POD_NAME`), Linkerd by kubert, Strimzi, Spring Cloud Kubernetes | the same |
    /// | hostname | cluster-autoscaler (`cluster-autoscaler/main.go`), CSI sidecars (`kubernetes-csi/csi-lib-utils/leaderelection`), `rancher/wrangler/pkg/leader` | the same, for it is the pod's name, cut at 63 characters; on the node's network it is the node's |
    /// | node name | kube-vip (`pkg/election`), Cilium's L2 announcer (`pkg/l2announcer`), static pods, kubelets | *cannot tell*: a node's name says nothing of a pod |
    /// | UUID alone | Java operators outside a pod (`java-operator-sdk`, `LeaderElectionManager.java`, where `HOSTNAME` is not set) | *cannot tell* |
    /// | pod UID | own code by way of the downward API (`metadata.uid`) | *cannot tell*, for it looks like any UUID. That the token's `pod-uid` equals it would say *own*, which no rule asks for; that it does not says nothing |
    /// | `pod-suffix`, `pod.suffix`, `pod/suffix`, `pod:suffix` | an elector's own addition to the pod's name | *own* to that pod; *foreign* to its siblings where a `/` or `:` sets it apart |
    ///
    /// A hostname is cut at 63 characters (`truncatePodHostnameIfNeeded` in `k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`),
    /// so a longer pod's name is recognised by its beginning. *Foreign* is only who is plainly a **sibling** of the pod that
    /// the identity names, by how Kubernetes makes the names of pods:
    ///
    /// - same ReplicaSet, DaemonSet or Job, other random suffix: `payments-7d4b9c6f5-x2x9k` against
    ///   `payments-7d4b9c6f5-q8w4m_91c7`;
    /// - same Deployment, other ReplicaSet, as in a roll-out: `payments-7d4b9c6f5-x2x9k` against
    ///   `payments-5c8f7d9bb-q8w4m_91c7`;
    /// - same StatefulSet, other ordinal.
    ///
    /// Whoever numbers identities apart from the pods' ordinals (the pod `worker-0` holds as `worker-1`) looks like a
    /// sibling to its own lease.
    ///
    /// By field manager where an elector puts its identity there (`kube-leader-election`, and
    /// `kube-lease-manager-<identity>`): `holder_manager` is the manager that last wrote the holder.
    pub fn ownership_of(&self, identity: &str, holder_manager: Option<&str>) -> Ownership {
        let by_pod = self
            .pod
            .as_deref()
            .map_or(Ownership::CannotTell, |pod| by_pod(pod, identity));
        if by_pod != Ownership::CannotTell {
            return by_pod;
        }
        match (holder_manager, self.field_manager.as_deref()) {
            (Some(holder), Some(writer)) if carries(holder, identity) => {
                if holder == writer {
                    Ownership::Own
                } else {
                    Ownership::Foreign
                }
            }
            _ => Ownership::CannotTell,
        }
    }
}

/// The longest host name that Linux gives a pod (`HOST_NAME_MAX` less one, as the kubelet cuts it).
const LONGEST_HOSTNAME: usize = 63;

fn by_pod(pod: &str, identity: &str) -> Ownership {
    let hostname = pod
        .get(..LONGEST_HOSTNAME)
        .unwrap_or(pod)
        .trim_end_matches(['-', '.']);
    for name in [pod, hostname] {
        if let Some(rest) = identity.strip_prefix(name)
            && (rest.is_empty() || rest.starts_with(['_', '-', '.', '/', ':']))
        {
            // `web-1` is no owner of `web-1-abcde`'s lease unless what follows cannot be another pod's name.
            return if rest.starts_with('-') && Suffix::of(rest.trim_start_matches('-')).is_some() {
                Ownership::CannotTell
            } else {
                Ownership::Own
            };
        }
    }
    let named = identity.split(['_', '/', ':']).next().unwrap_or(identity);
    if of_one_workload(pod, named) || of_one_deployment(pod, named) {
        Ownership::Foreign
    } else {
        Ownership::CannotTell
    }
}

/// Whether two names are those of different pods that one ReplicaSet, DaemonSet, Job or StatefulSet made.
fn of_one_workload(pod: &str, other: &str) -> bool {
    match (siblings_of(pod), siblings_of(other)) {
        (Some((ours, our_kind, our_suffix)), Some((theirs, their_kind, their_suffix))) => {
            ours == theirs && our_kind == their_kind && our_suffix != their_suffix
        }
        _ => false,
    }
}

/// Whether two names are those of pods of different ReplicaSets of one Deployment.
fn of_one_deployment(pod: &str, other: &str) -> bool {
    match (deployment_of(pod), deployment_of(other)) {
        (Some((ours, our_hash)), Some((theirs, their_hash))) => ours == theirs && our_hash != their_hash,
        _ => false,
    }
}

/// What tells a pod from its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    /// Five of the characters that Kubernetes draws names from (`k8s.io/apimachinery/pkg/util/rand`: no vowels, no
    /// 0, 1, 3). Five digits of them are taken for this, too.
    Random,
    /// A StatefulSet's ordinal.
    Ordinal,
}

impl Suffix {
    fn of(suffix: &str) -> Option<Self> {
        let drawn = |byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte);
        if suffix.len() == 5 && suffix.bytes().all(drawn) {
            return Some(Self::Random);
        }
        let ordinal = (1..=5).contains(&suffix.len()) && suffix.bytes().all(|byte| byte.is_ascii_digit());
        ordinal.then_some(Self::Ordinal)
    }
}

/// The part of a pod's name that its siblings share, and its own suffix.
fn siblings_of(pod: &str) -> Option<(&str, Suffix, &str)> {
    let (shared, suffix) = pod.rsplit_once('-')?;
    let kind = Suffix::of(suffix).filter(|_| !shared.is_empty())?;
    Some((shared, kind, suffix))
}

/// The Deployment whose pod a name plainly is, and the hash of the pod's template: `<deployment>-<hash>-<random>`.
///
/// The hash is a number of 32 bits in decimals, each digit of which is written as another character
/// (`ComputeHash` in `k8s.io/kubernetes/pkg/controller/controller_utils.go`, `SafeEncodeString` in
/// `k8s.io/apimachinery/pkg/util/rand`): 0 to 9 become `456789bcdf`. All but one in 400 have 8 to 10 digits; a shorter one
/// could be a word of the Deployment's name.
fn deployment_of(pod: &str) -> Option<(&str, &str)> {
    let (replica_set, Suffix::Random, _) = siblings_of(pod)? else {
        return None;
    };
    let (deployment, hash) = replica_set.rsplit_once('-')?;
    let is_hash = (8..=10).contains(&hash.len()) && hash.bytes().all(|byte| b"456789bcdf".contains(&byte));
    (is_hash && !deployment.is_empty()).then_some((deployment, hash))
}

/// Whether a field manager's name is made of an identity that only one process has.
fn carries(manager: &str, identity: &str) -> bool {
    !identity.is_empty()
        && (manager == identity
            || manager
                .strip_suffix(identity)
                .is_some_and(|rest| rest.ends_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pod(pod: &'static str, identity: &str) -> Ownership {
        Writer {
            pod: Some(pod.into()),
            ..Writer::default()
        }
        .ownership_of(identity, None)
    }

    #[test]
    fn identities_are_held_against_the_pod() {
        use Ownership::{CannotTell, Foreign, Own};
        let uuid = "0b7c1c5e-0d6f-4b3f-9a55-0c9d5c1b2f3a";
        let long = "a-deployment-with-a-very-long-name-that-goes-on-and-on-7d4b9c6f5-x2x9k";
        for (pod, identity, expected) in [
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-7d4b9c6f5-x2x9k".to_owned(),
                Own,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                format!("payments-7d4b9c6f5-x2x9k_{uuid}"),
                Own,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                format!("payments-7d4b9c6f5-x2x9k-{uuid}"),
                Own,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-7d4b9c6f5-q8w4m".to_owned(),
                Foreign,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                format!("payments-7d4b9c6f5-q8w4m_{uuid}"),
                Foreign,
            ),
            // Another ReplicaSet of the same Deployment: a roll-out.
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-5c8f7d9bb-q8w4m".to_owned(),
                Foreign,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                format!("payments-5c8f7d9bb-x2x9k_{uuid}"),
                Foreign,
            ),
            (
                "shop-payments-7d4b9c6f5-x2x9k",
                "shop-payments-5c8f7d9b-q8w4m".to_owned(),
                Foreign,
            ),
            // No template's hash: too short, too long, or of characters that no hash has.
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-5c8f7d9-q8w4m".to_owned(),
                CannotTell,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-5c8f7d9bb44-q8w4m".to_owned(),
                CannotTell,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-scheduler-q8w4m".to_owned(),
                CannotTell,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-2222tttt-q8w4m".to_owned(),
                CannotTell,
            ),
            // No random suffix, another Deployment, or one whose name merely begins alike.
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-5c8f7d9bb-1".to_owned(),
                CannotTell,
            ),
            (
                "payments-7d4b9c6f5-x2x9k",
                "payments-api-5c8f7d9bb-q8w4m".to_owned(),
                CannotTell,
            ),
            ("7d4b9c6f5-x2x9k", "5c8f7d9bb-q8w4m".to_owned(), CannotTell),
            (
                "payments-7d4b9c6f5-x2x9k",
                "orders-7d4b9c6f5-q8w4m".to_owned(),
                CannotTell,
            ),
            ("web-0", "web-0".to_owned(), Own),
            ("web-0", "web-1".to_owned(), Foreign),
            ("web-0", format!("web-1_{uuid}"), Foreign),
            ("web-1", "web-10".to_owned(), Foreign),
            ("web-1", "web-1-x2x9k".to_owned(), CannotTell),
            // A DaemonSet's pod, and a node or a StatefulSet's pod that happens to be called like it.
            ("worker-x2x9k", "worker-2".to_owned(), CannotTell),
            ("worker-2", "worker-x2x9k".to_owned(), CannotTell),
            ("payments-7d4b9c6f5-x2x9k", uuid.to_owned(), CannotTell),
            (
                "payments-7d4b9c6f5-x2x9k",
                "node-17.example".to_owned(),
                CannotTell,
            ),
            ("payments-7d4b9c6f5-x2x9k", String::new(), CannotTell),
            (long, long.get(..63).unwrap_or_default().to_owned(), Own),
            (long, format!("{}_{uuid}", &long[..63]), Own),
        ] {
            assert_eq!(of_pod(pod, &identity), expected, "{pod} {identity}");
        }
    }

    #[test]
    fn identities_are_held_against_field_managers_that_carry_them() {
        let by = |manager: &'static str, holder_manager, identity| {
            let writer = Writer {
                field_manager: Some(manager.into()),
                ..Writer::default()
            };
            writer.ownership_of(identity, holder_manager)
        };
        assert_eq!(by("a", Some("a"), "a"), Ownership::Own);
        assert_eq!(by("b", Some("a"), "a"), Ownership::Foreign);
        assert_eq!(
            by("kube-lease-manager-b", Some("kube-lease-manager-a"), "a"),
            Ownership::Foreign
        );
        assert_eq!(
            by("payments", Some("payments"), "a"),
            Ownership::CannotTell,
            "a name that all instances share"
        );
        assert_eq!(by("kubectl", Some("payments"), "a"), Ownership::CannotTell);
        assert_eq!(by("b", None, "a"), Ownership::CannotTell);
    }
}
