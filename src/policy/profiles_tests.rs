use super::*;
use crate::{
    lease::{
        Owner,
        testing::{create, free, held, takeover, untouched, update},
    },
    policy::{CATALOGUE, Policy},
    verdict::Outcome,
};

fn name(write: &Write<'_>) -> Option<&'static str> {
    Profile::of(write).map(Profile::as_str)
}

#[test]
fn each_profile_is_recognised_by_its_shape() {
    let mut elected = update(
        free().renewed_at(0),
        held("b").strategy("OldestEmulationVersion").transitions(3),
    );
    assert_eq!(name(&elected), None, "the mark alone is anybody's");
    elected.writer.user = API_SERVER.into();
    assert_eq!(name(&elected), Some("coordinated-leader-election"));

    let mut identity = create(held("apiserver-x_1"));
    identity.writer.user = API_SERVER.into();
    identity.new.labels = vec![("apiserver.kubernetes.io/identity".into(), "kube-apiserver".into())];
    assert_eq!(name(&identity), Some("api-server-identity"));

    let mut node = create(held("node-1").duration(40).transitions(None));
    node.lease.namespace = "kube-node-lease".into();
    node.lease.name = "node-1".into();
    node.writer.user = "system:node:node-1".into();
    assert_eq!(name(&node), Some("node-lease"));
    node.writer.user = "system:node:node-2".into();
    assert_eq!(name(&node), None);

    let mut manager = update(free().renewed_at(0), held("b").transitions(3));
    manager.writer.field_manager = Some("kube-lease-manager-k3x".into());
    assert_eq!(name(&manager), Some("kube-lease-manager"));

    let mut short = create(held("node-1/whereabouts-x2x9k").duration(1));
    assert_eq!(name(&short), None);
    short.lease.name = "whereabouts".into();
    assert_eq!(name(&short), Some("whereabouts"));
    short.new.record.duration_seconds = Some(2);
    assert_eq!(name(&short), None);

    let counted_over = |before, after| takeover(held("a").transitions(before), held("b").transitions(after));
    assert_eq!(name(&counted_over(65_536, 1)), Some("sixteen-bit-count"));
    assert_eq!(name(&counted_over(65_535, 1)), None, "it fits");
    assert_eq!(name(&counted_over(65_536, 0)), None);

    let again = update(
        held("a").acquired_at(0).transitions(3),
        held("a").acquired_at(60).transitions(4),
    );
    assert_eq!(name(&again), Some("same-holder-increment"));
    assert_eq!(
        name(&update(held("a"), held("a").duration(1))),
        Some("release-by-duration")
    );
    assert_eq!(
        name(&update(held("a").renewed_at(0), free())),
        Some("release-by-nulls")
    );
    assert_eq!(
        name(&update(held("a").renewed_at(0), free().renewed_at(1))),
        None,
        "client-go's"
    );
    let untracked = takeover(held("a").transitions(None), held("b").transitions(None));
    assert_eq!(name(&untracked), Some("untracked"));
    assert_eq!(
        name(&update(untouched(), held("b").transitions(None))),
        None,
        "the first holder"
    );
    assert_eq!(
        name(&takeover(held("a"), held("b").transitions(4))),
        None,
        "client-go's"
    );
}

#[test]
fn istiod_may_take_istios_own_lease_for_another_revision_and_nothing_else() {
    let mut steal = takeover(held("a"), held("b").transitions(4));
    steal.lease.namespace = "istio-system".into();
    steal.lease.name = "istio-status-leader".into();
    steal.writer.user = "system:serviceaccount:istio-system:istiod".into();
    (steal.old.istio_key, steal.new.istio_key) = (Some("canary".into()), Some("default".into()));
    let with = |change: &dyn Fn(&mut Write<'static>)| {
        let mut write = steal.clone();
        change(&mut write);
        name(&write)
    };
    let istio = Some("istio-priority-lock");
    assert_eq!(name(&steal), istio);
    assert_eq!(
        with(&|it| it.old.istio_key = None),
        istio,
        "the holder had no priority"
    );
    assert_eq!(
        with(&|it| it.old.istio_key = Some("^default".into())),
        istio,
        "a remote one"
    );
    assert_eq!(with(&|it| it.lease.name = "istio-ip-autoallocate".into()), istio);
    assert_eq!(with(&|it| it.new.istio_key = None), None);
    assert_eq!(with(&|it| it.new.istio_key = Some("".into())), None);
    assert_eq!(
        with(&|it| it.old.istio_key = Some("default".into())),
        None,
        "the same revision"
    );
    assert_eq!(with(&|it| it.lease.name = "payments".into()), None, "not Istio's");
    assert_eq!(
        with(&|it| it.lease.namespace = "shop".into()),
        None,
        "not next to it"
    );
    assert_eq!(with(&|it| it.change = Change::Renew), None);
    for (account, expected) in [
        ("istio-system:istiod-canary", istio),
        ("istio-system:istiod-", None),
        ("istio-system:istiodx", None),
        ("istio-system:default", None),
        ("shop:istiod", None),
        ("istio-system", None),
    ] {
        let user = format!("system:serviceaccount:{account}");
        assert_eq!(
            with(&|it| it.writer.user = user.clone().into()),
            expected,
            "{account}"
        );
    }
}

#[test]
fn only_longhorns_own_account_may_take_a_share_managers_lease_at_once() {
    let mut take = takeover(
        held("node-1").renewed_at(0),
        held("node-2").transitions(4).renewed_at(4),
    )
    .stamped(0, 4);
    take.lease.namespace = "longhorn-system".into();
    take.lease.name = "pvc-4711".into();
    take.writer.user = "system:serviceaccount:longhorn-system:longhorn-service-account".into();
    let owner = |api_version: &'static str, kind: &'static str| Owner {
        api_version: api_version.into(),
        kind: kind.into(),
    };
    take.old.owners = vec![owner("v1", "Node"), owner("longhorn.io/v1beta2", "ShareManager")];
    let with = |change: &dyn Fn(&mut Write<'static>)| {
        let mut write = take.clone();
        change(&mut write);
        (name(&write), Policy::default().decide(&write).outcome())
    };
    let longhorn = (Some("longhorn-share-manager"), Outcome::Allow);
    let anybody = (None, Outcome::Deny);
    assert_eq!(with(&|_| {}), longhorn);
    assert_eq!(
        with(&|it| it.old.owners.clear()),
        anybody,
        "a lease of another kind"
    );
    assert_eq!(
        with(&|it| {
            it.new.owners = std::mem::take(&mut it.old.owners);
        }),
        anybody,
        "the write itself cannot bring the owner"
    );
    assert_eq!(
        with(&|it| it.old.owners = vec![owner("example.com/v1", "ShareManager")]),
        anybody
    );
    for user in [
        "system:serviceaccount:longhorn-system:default",
        "system:serviceaccount:shop:longhorn-service-account",
        "longhorn-service-account",
        "admin",
    ] {
        assert_eq!(with(&|it| it.writer.user = user.into()), anybody, "{user}");
    }
    let uncounted = with(&|it| it.new.record.transitions = Some(3));
    assert_eq!(
        uncounted,
        (Some("longhorn-share-manager"), Outcome::Deny),
        "nothing else is excused"
    );
}

#[test]
fn only_what_the_api_server_vouches_for_may_take_over_early() {
    for row in PROFILES.iter().filter(|row| row.proof == Proof::Shape) {
        assert!(
            row.caps
                .iter()
                .all(|(rule, _)| *rule != "takeover-before-expiry" && *rule != "stamp-tampered"),
            "{}",
            row.name
        );
    }
}

#[test]
fn profiles_name_rules_that_exist_and_their_sources() {
    // Rules that advise from memory are part of the catalogue like all others.
    for row in PROFILES {
        assert!(!row.source.is_empty());
        for (rule, _) in row.caps {
            let known = CATALOGUE.iter().any(|entry| entry.name.as_str() == *rule);
            assert!(
                known || ["recreated-early", "flapping"].contains(rule),
                "{}: {rule}",
                row.name
            );
        }
    }
}

#[test]
fn a_profile_lowers_what_a_rule_leads_to_and_the_verdict_names_it() {
    let mut elected = update(
        free().renewed_at(0),
        held("b").strategy("OldestEmulationVersion").transitions(3),
    );
    elected.writer.user = API_SERVER.into();
    let verdict = Policy::default().decide(&elected);
    assert_eq!(verdict.outcome(), Outcome::Allow);
    assert_eq!(
        verdict.profile.map(Profile::as_str),
        Some("coordinated-leader-election")
    );
    elected.writer.user = "somebody".into();
    assert_eq!(Policy::default().decide(&elected).outcome(), Outcome::Deny);
}
