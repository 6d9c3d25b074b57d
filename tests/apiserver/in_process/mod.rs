//! The half of a policy that the API server holds by itself: `leasehold export vap`, and no Leasehold anywhere.

mod alone;
mod beside;
mod equivalence;
mod limits;
mod static_files;

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use leasehold::policy::in_process::{Export, ExportOptions};
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        audit::text,
        leases::Leases,
        policies::{self, BINDINGS, POLICIES},
        until,
        world::World,
    },
};

/// Namespaces with this label are under the policies that are installed under its value.
const LABEL: &str = "tests.leasehold.dev/in-process";

/// How often policies were installed, so that no policy that tells of it is taken for an earlier one.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The tests of this folder, on this minor version of Kubernetes where it is known.
pub(crate) fn tests(minor_version: Option<u32>) -> Vec<Test> {
    [
        alone::tests(),
        limits::tests(),
        equivalence::tests(),
        beside::tests(),
        static_files::tests(minor_version),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The policy that refuses, and the one that warns and annotates.
pub(crate) const PARTS: [&str; 2] = ["deny", "advice"];

/// Installs what a policy document exports, for the namespaces that are labelled so, and gives the policies' names.
/// With `only_audited` no write is denied: the audit log gets what would have been, as the message of a failed validation.
async fn install(
    world: &World,
    name: &str,
    document: &str,
    only_audited: bool,
) -> anyhow::Result<Vec<String>> {
    let options = ExportOptions {
        advice: true,
        ..ExportOptions::default()
    };
    let (mut objects, mut names) = (Export::of(document, options)?.objects(), Vec::new());
    for object in &mut objects {
        let own = format!("{name}.{}", text(object, "/metadata/name"));
        object["metadata"]["name"] = own.clone().into();
        if text(object, "/kind") == "ValidatingAdmissionPolicy" {
            names.push(own);
        } else {
            object["spec"]["policyName"] = own.into();
            object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels": {LABEL: name}}});
            // Of one policy only: the API server keeps what one of them says.
            if only_audited && object["spec"]["validationActions"] == json!(["Deny"]) {
                object["spec"]["validationActions"] = json!(["Audit"]);
            }
        }
    }
    let last = format!("{name}.compiled-{}", INSTALLED.fetch_add(1, Ordering::Relaxed));
    policies::install(&world.admin().await?, objects, &last).await?;
    Ok(names)
}

/// Waits until the API server has learnt of every one of these policies: until a write that breaks a rule of each is
/// annotated by each. `write` does that; the policy that refuses is installed to be audited only.
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
            let refusing = failed_validation(event).map(|(policy, _)| policy);
            asked.extend(names.iter().filter(|name| refusing.as_ref() == Some(name)));
        }
        tokio::time::sleep(crate::harness::POLL).await;
    }
    Ok(())
}

/// The policy whose validation failed, and its message, where its binding has the action Audit.
fn failed_validation(event: &Value) -> Option<(String, String)> {
    let annotation = "/annotations/validation.policy.admission.k8s.io~1validation_failure";
    let failures: Value = serde_json::from_str(event.pointer(annotation)?.as_str()?).ok()?;
    let failure = failures.get(0)?;
    Some((
        text(failure, "/policy").to_owned(),
        text(failure, "/message").to_owned(),
    ))
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
