//! ValidatingAdmissionPolicies, installed so that none is evaluated while another is compiled.

use serde_json::{Value, json};

use super::{api::Api, audit::text, until};

/// Where the API server has its policies, and what binds them.
pub(crate) const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
pub(crate) const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// Waits until the API server has compiled every policy that was changed, be it in its status alone: an API server before
/// 1.36 compiles it anew for that, too.
pub(crate) async fn settled(admin: &Api, last: &str) -> anyhow::Result<()> {
    install(admin, Vec::new(), last).await
}

/// Installs policies and bindings. `last` is a name that no policy has had before.
///
/// Returns when the API server has compiled them all and judges by them. Until then nobody may write under them: an API
/// server before 1.36 may end if it evaluates one policy while it compiles another (kubernetes#135757).
pub(crate) async fn install(admin: &Api, objects: Vec<Value>, last: &str) -> anyhow::Result<()> {
    let (mut policies, mut bindings): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| text(object, "/kind") == "ValidatingAdmissionPolicy");
    // The API server compiles a policy when it is bound, and publishes all that it compiled at once: where the last of
    // them judges, all do. That one has no variables, so that its own evaluation is safe.
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
    Ok(())
}
