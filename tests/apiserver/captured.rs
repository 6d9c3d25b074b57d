//! Real reviews, as the API server sends them for the writes of a bound pod. With `LEASEHOLD_TEST_CAPTURE=1` they are
//! kept in `tests/data/reviews`, where the tests of the decoder and of the rules read them; without it the same
//! writes are only made, and the shape that the kept ones have is checked.

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        api::Api,
        assets::repository,
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        world::World,
    },
    test,
};

const NAMESPACE: &str = "shop";
const MANAGER: &str = "payments";

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Recorded,
        "captured::reviews_of_a_bound_pod",
        reviews_of_a_bound_pod,
    )]
}

/// What a file is called, and the operation it holds.
type Capture = (&'static str, Value);

async fn reviews_of_a_bound_pod(world: &'static World) -> anyhow::Result<()> {
    let (admin, recorder) = world.recorded_leases(NAMESPACE).await?;
    let first = bound_pod(world, &admin.api, "payments-7d4b9c6f5-x2x9k").await?;
    let second = bound_pod(world, &admin.api, "payments-7d4b9c6f5-q8w4m").await?;
    let mut captures: Vec<Capture> = Vec::new();
    let mut keep = |file, lease: &str| -> anyhow::Result<()> {
        captures.push((file, recorder.last(NAMESPACE, lease)?));
        Ok(())
    };

    let (a, b) = ("payments-7d4b9c6f5-x2x9k_5e0b", "payments-7d4b9c6f5-q8w4m_91c7");
    let held = |holder: &str, at: jiff::Timestamp, transitions: i64| {
        json!({
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": format!("{at:.6}"),
            "renewTime": format!("{at:.6}"),
            "leaseTransitions": transitions,
        })
    };
    let now = || admin.api.now();

    // One lease through its life.
    let lock = "payments";
    let created = now().await?;
    first
        .create(lock, MANAGER, held(a, created, 0))
        .await?
        .accepted()?;
    keep("create", lock)?;
    let at = admin.api.after_second(created).await?;
    let renewal = Edit::spec(MANAGER, json!({"renewTime": format!("{at:.6}")}));
    first.edit(Verb::Put, lock, &renewal).await?.accepted()?;
    keep("renew", lock)?;
    first
        .edit(
            Verb::MergePatch,
            lock,
            &Edit::labels(MANAGER, json!({"app": "shop"})),
        )
        .await?
        .accepted()?;
    keep("label", lock)?;
    let at = admin.api.after_second(at).await?;
    let takeover = Edit::spec(MANAGER, held(b, at, 1));
    second
        .edit(Verb::Put, lock, &takeover.clone().dry())
        .await?
        .accepted()?;
    keep("takeover-early-dry-run", lock)?;
    second.edit(Verb::Put, lock, &takeover).await?.accepted()?;
    keep("takeover-early", lock)?;
    let release = json!({
        "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": format!("{at:.6}"), "renewTime": format!("{at:.6}"),
    });
    second
        .edit(Verb::Put, lock, &Edit::spec(MANAGER, release))
        .await?
        .accepted()?;
    keep("release-empty-holder", lock)?;
    first
        .edit(Verb::Put, lock, &Edit::spec(MANAGER, held(a, now().await?, 2)))
        .await?
        .accepted()?;
    keep("acquire", lock)?;
    first.delete(lock).await?.accepted()?;
    keep("delete", lock)?;

    // A takeover after expiry, by stamps, on a short lease.
    let lock = "payments-short";
    let created = now().await?;
    let mut short = held(a, created, 0);
    *short.pointer_mut("/leaseDurationSeconds").context("spec")? = 2.into();
    first.create(lock, MANAGER, short).await?.accepted()?;
    let at = admin.api.until_elapsed(created, 3).await?;
    second
        .edit(Verb::Put, lock, &Edit::spec(MANAGER, held(b, at, 1)))
        .await?
        .accepted()?;
    keep("takeover-after-expiry", lock)?;

    // Takeovers that touch the holder only, by apply, with a lying clock, with forged and with cleared stamps.
    for (file, lock) in [
        ("takeover-holder-only", "holder-only"),
        ("takeover-by-apply", "by-apply"),
        ("takeover-lying-clock", "lying"),
        ("takeover-forged-stamps", "forged"),
        ("takeover-cleared-stamps", "cleared"),
        ("label-with-forged-stamps", "label-forged"),
        ("release-by-nulls", "nulls"),
    ] {
        let created = now().await?;
        first
            .create(lock, MANAGER, held(a, created, 0))
            .await?
            .accepted()?;
        let at = admin.api.after_second(created).await?;
        let mut forged = admin
            .get(lock)
            .await?
            .pointer("/metadata/managedFields")
            .cloned()
            .context("no entries")?;
        *forged.pointer_mut("/0/time").context("no time")? = "2001-02-03T04:05:06Z".into();
        let (verb, edit) = match file {
            "takeover-holder-only" => (
                Verb::MergePatch,
                Edit::spec("other", json!({"holderIdentity": b})),
            ),
            "takeover-by-apply" => (Verb::Apply, Edit::spec("other", held(b, at, 1))),
            "takeover-lying-clock" => (
                Verb::Put,
                Edit::spec(MANAGER, held(b, at + SignedDuration::from_hours(1), 1)),
            ),
            "takeover-forged-stamps" => (
                Verb::Put,
                Edit::spec("other", held(b, at, 1)).with_managed_fields(forged),
            ),
            "takeover-cleared-stamps" => (
                Verb::Put,
                Edit::spec(MANAGER, held(b, at, 1)).with_managed_fields(json!([{}])),
            ),
            "label-with-forged-stamps" => (
                Verb::Put,
                Edit::labels("other", json!({"app": "shop"})).with_managed_fields(forged),
            ),
            _ => {
                let nulls = json!({"holderIdentity": null, "acquireTime": null, "renewTime": null});
                (Verb::MergePatch, Edit::spec(MANAGER, nulls))
            }
        };
        second.edit(verb, lock, &edit).await?.accepted()?;
        keep(file, lock)?;
    }
    first.create("empty", MANAGER, json!({})).await?.accepted()?;
    keep("create-empty", "empty")?;
    admin
        .api
        .delete(admin.path("").trim_end_matches('/'))
        .await?
        .accepted()?;
    keep("deletecollection", "lying")?;

    let capture = std::env::var_os("LEASEHOLD_TEST_CAPTURE").is_some();
    for (file, review) in captures {
        let expected = match file {
            "create" | "create-empty" => "CREATE",
            "delete" | "deletecollection" => "DELETE",
            _ => "UPDATE",
        };
        ensure!(
            text(&review, "/request/operation") == expected,
            "{file}: {}",
            text(&review, "/request/operation")
        );
        let path = repository("tests/data/reviews").join(format!("{file}.json"));
        if capture {
            std::fs::create_dir_all(repository("tests/data/reviews"))?;
            std::fs::write(&path, serde_json::to_string_pretty(&review)? + "\n")?;
        }
        let kept = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "{} is not there: run once with LEASEHOLD_TEST_CAPTURE=1",
                path.display()
            )
        })?;
        let kept: Value = serde_json::from_str(&kept)?;
        let (kept, seen) = (shape(&kept), shape(&review));
        let gone: Vec<&String> = kept.iter().filter(|at| !seen.contains(at)).collect();
        ensure!(
            gone.is_empty(),
            "{file}: the API server sends no {gone:?} any more"
        );
    }
    Ok(())
}

/// Where in a review there is anything, save what a user's identity happens to carry.
fn shape(review: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, into: &mut Vec<String>) {
        into.push(at.to_owned());
        if let Value::Object(map) = value {
            for (name, value) in map.iter().filter(|(name, _)| *name != "extra") {
                walk(value, &format!("{at}/{name}"), into);
            }
        }
    }
    let mut found = Vec::new();
    walk(review, "", &mut found);
    found
}

/// The client of a pod: a token that is bound to it, as a kubelet would mount it.
async fn bound_pod(world: &World, admin: &Api, pod: &str) -> anyhow::Result<Leases> {
    let account = "payments";
    let base = format!("/api/v1/namespaces/{NAMESPACE}");
    let service_account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
    // The second pod finds the account there.
    let reply = admin
        .post(&format!("{base}/serviceaccounts"), &service_account)
        .await?;
    ensure!(
        reply.code == 201 || reply.code == 409,
        "cannot create the ServiceAccount: {}",
        reply.message()
    );
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    });
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings");
    let reply = admin.post(&path, &binding).await?;
    ensure!(
        reply.code == 201 || reply.code == 409,
        "cannot create the RoleBinding: {}",
        reply.message()
    );
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "containers": [{"name": "payments", "image": "payments"}],
        },
    });
    admin.post(&format!("{base}/pods"), &manifest).await?.accepted()?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod}},
    });
    let reply = admin
        .post(&format!("{base}/serviceaccounts/{account}/token"), &request)
        .await?
        .accepted()?;
    let api = world.plane().await?.client(text(&reply, "/status/token"))?;
    let leases = Leases {
        api,
        namespace: NAMESPACE.to_owned(),
    };
    // RBAC learns of a binding by a watch.
    crate::harness::until("the pod to be allowed to write", || async {
        Ok((leases.api.get(&leases.path("none")).await?.code == 404).then_some(()))
    })
    .await?;
    Ok(leases)
}
