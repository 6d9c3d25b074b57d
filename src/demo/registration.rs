//! Registers the guard at a real API server, for the guarded namespace alone.

use std::time::Duration;

use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration, coordination::v1::Lease,
        core::v1::Namespace,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    DemoError,
    guard::Guard,
    kube_store::api_error,
    match_condition::LEAN_EXPRESSION,
    review::WEBHOOK_NAME,
    script::{GUARDED, UNGUARDED},
    store::ApiError,
    webhook::TIMEOUT,
};

/// Longest wait for a registration to take effect. It takes about a second.
const TAKES_EFFECT: Duration = Duration::from_secs(30);

/// Makes both namespaces, registers `guard`, and waits until it is asked.
///
/// # Errors
/// [`DemoError::Registration`] with the API server's words.
pub async fn register(client: &Client, guard: &Guard) -> Result<(), DemoError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in [UNGUARDED, GUARDED] {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .map_err(refused)?;
    }
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    webhooks
        .create(&PostParams::default(), &configuration(guard)?)
        .await
        .map_err(refused)?;
    wait_until_asked(client).await
}

fn configuration(guard: &Guard) -> Result<ValidatingWebhookConfiguration, DemoError> {
    let authority: Vec<u8> = guard.authority.pem().into_bytes();
    serde_json::from_value(json!({
        "metadata": {"name": "leasehold"},
        "webhooks": [{
            "name": WEBHOOK_NAME,
            "clientConfig": {"url": guard.url(), "caBundle": k8s_openapi::ByteString(authority)},
            "rules": [{
                "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"], "resources": ["leases"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
            }],
            "matchPolicy": "Equivalent",
            "matchConditions": [{"name": "not-a-pure-renewal", "expression": LEAN_EXPRESSION}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GUARDED}},
            "failurePolicy": "Ignore",
            "timeoutSeconds": TIMEOUT.as_secs(),
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    }))
    .map_err(|error| DemoError::Registration(ApiError::new(0, "", error.to_string())))
}

/// Tries, as a dry run, what the guard denies, until it is denied.
async fn wait_until_asked(client: &Client) -> Result<(), DemoError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), GUARDED);
    let refusable = json!({
        "metadata": {"name": "is-the-guard-asked"},
        "spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 1},
    });
    let refusable: Lease = serde_json::from_value(refusable)
        .map_err(|error| DemoError::Registration(ApiError::new(0, "", error.to_string())))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let deadline = Instant::now() + TAKES_EFFECT;
    loop {
        let error = leases.create(&dry_run, &refusable).await.map_err(api_error).err();
        match error {
            Some(denial) if denial.is_denial() => return Ok(()),
            Some(other) if Instant::now() >= deadline => return Err(DemoError::Registration(other)),
            None if Instant::now() >= deadline => {
                let message = format!("not in effect after {} s", TAKES_EFFECT.as_secs());
                return Err(DemoError::Registration(ApiError::new(0, "", message)));
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn refused(error: kube::Error) -> DemoError {
    DemoError::Registration(api_error(error))
}
