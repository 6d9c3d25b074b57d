//! The half of a policy that the API server holds by itself: `leasehold export vap`, and no Leasehold anywhere.

mod alone;
mod beside;
mod equivalence;
mod limits;

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use leasehold::policy::in_process::Export;
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{audit::text, leases::Leases, until, world::World},
};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// Namespaces with this label are under the policies that are installed under its value.
const LABEL: &str = "tests.leasehold.dev/in-process";

/// How often policies were installed, so that no policy that tells of it is taken for an earlier one.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Test> {
    [
        alone::tests(),
        limits::tests(),
        equivalence::tests(),
        beside::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Installs what a policy document exports, for the namespaces that are labelled so, and gives the policies' names.
/// With `only_audited` no write is denied and no client warned; the audit log is told all the same.
///
/// Returns when the API server has compiled them all and judges by them. Until then no test may write under them: an API
/// server before 1.36 may end if it evaluates one policy while it compiles another (see `Schedule`).
async fn install(
    world: &World,
    name: &str,
    document: &str,
    only_audited: bool,
) -> anyhow::Result<Vec<String>> {
    let admin = world.admin().await?;
    let (mut policies, mut bindings) = (Vec::new(), Vec::new());
    for mut object in Export::of(document)?.objects() {
        let own = format!("{name}.{}", text(&object, "/metadata/name"));
        object["metadata"]["name"] = own.clone().into();
        if text(&object, "/kind") == "ValidatingAdmissionPolicy" {
            policies.push(object);
        } else {
            object["spec"]["policyName"] = own.into();
            object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels": {LABEL: name}}});
            if only_audited {
                object["spec"]["validationActions"] = json!(["Audit"]);
            }
            bindings.push(object);
        }
    }
    let names = policies
        .iter()
        .map(|policy| text(policy, "/metadata/name").to_owned())
        .collect();
    // The API server compiles a policy when it is bound, and publishes all that it compiled at once: where the last of
    // them judges, all do. That one has no variables, so that its own evaluation is safe.
    let last = format!("{name}.compiled-{}", INSTALLED.fetch_add(1, Ordering::Relaxed));
    policies.push(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": last},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"],
                "resourceNames": [last],
            }]},
            "validations": [{"expression": "false", "reason": "Forbidden"}],
        },
    }));
    bindings.push(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": last},
        "spec": {"policyName": last, "validationActions": ["Deny"]},
    }));
    for (path, objects) in [(POLICIES, &policies), (BINDINGS, &bindings)] {
        for object in objects {
            admin.post(path, object).await?.accepted()?;
        }
    }
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": last}});
    until("the API server to have compiled the policies", || async {
        let reply = admin
            .post("/api/v1/namespaces/default/configmaps?dryRun=All", &config_map)
            .await?;
        if reply.code == 403 {
            return Ok(Some(()));
        }
        reply.accepted()?;
        Ok(None)
    })
    .await?;
    for path in [BINDINGS, POLICIES] {
        admin.delete(&format!("{path}/{last}")).await?.accepted()?;
    }
    Ok(names)
}

/// Waits until the API server has learnt of every one of these policies: until a write that breaks a rule of each is
/// annotated by each. `write` does that.
async fn until_asked(
    world: &World,
    leases: &Leases,
    names: &[String],
    mut write: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut asked = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while asked.len() < names.len() {
        ensure!(
            std::time::Instant::now() < deadline,
            "waited in vain for {names:?}, found {asked:?}"
        );
        write().await?;
        let audit = world.plane().await?.audit()?;
        for event in audit.lease_writes(&leases.namespace) {
            let annotations = event.pointer("/annotations").and_then(Value::as_object);
            for key in annotations.into_iter().flat_map(|annotations| annotations.keys()) {
                asked.extend(names.iter().filter(|name| key.starts_with(&format!("{name}/"))));
            }
        }
        tokio::time::sleep(crate::harness::POLL).await;
    }
    Ok(())
}

/// A namespace under the policies that are installed under `which`, once they judge there: until a lease that no
/// policy of these tests lets pass is refused.
async fn guarded_leases(world: &World, which: &str, namespace: &str) -> anyhow::Result<Leases> {
    let leases = world.leases_with_labels(namespace, json!({LABEL: which})).await?;
    until("the API server to know the policy", || async {
        let spec = json!({"holderIdentity": "probe", "leaseDurationSeconds": 1});
        let reply = leases.create("probe", "probe", spec).await?;
        if reply.code == 403 {
            // Where the webhook guards, too, it refuses until the policy does.
            let by_policy = format!("ValidatingAdmissionPolicy '{which}.deny.");
            return Ok(reply.message().contains(&by_policy).then_some(()));
        }
        reply.accepted()?;
        leases.delete("probe").await?.accepted()?;
        Ok(None)
    })
    .await
    .with_context(|| namespace.to_owned())?;
    Ok(leases)
}
