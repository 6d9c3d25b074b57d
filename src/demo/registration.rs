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
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    DemoError,
    guard::Guard,
    kube_store::api_error,
    script::{GUARDED, UNGUARDED},
    store::ApiError,
};

const MANIFEST: &str = include_str!("../../manifests/base/webhook.yaml");

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

/// The configuration that is installed in clusters, with another address and other namespaces.
fn configuration(guard: &Guard) -> Result<ValidatingWebhookConfiguration, DemoError> {
    let odd = |error: String| DemoError::Registration(ApiError::new(0, "", error));
    let mut configuration: Value =
        serde_saphyr::from_str(MANIFEST).map_err(|error| odd(error.to_string()))?;
    let authority = k8s_openapi::ByteString(guard.authority.pem().into_bytes());
    // The one for Leases; there is no ConfigMap of a policy here to guard.
    let mut webhook = configuration["webhooks"][0].take();
    webhook["clientConfig"] = json!({"url": guard.url(), "caBundle": authority});
    webhook["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": GUARDED}});
    configuration["webhooks"] = json!([webhook]);
    serde_json::from_value(configuration).map_err(|error| odd(error.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{match_condition, review::WEBHOOK_NAME, webhook::TIMEOUT};

    #[tokio::test]
    async fn it_is_the_manifest_and_the_memory_store_does_what_it_says() {
        let guard = Guard::start().await.unwrap();
        let webhooks = configuration(&guard).unwrap().webhooks.unwrap();
        let [webhook] = webhooks.as_slice() else {
            panic!("one webhook")
        };
        assert_eq!(webhook.name, WEBHOOK_NAME);
        assert_eq!(webhook.client_config.url, Some(guard.url()));
        assert_eq!(webhook.client_config.service, None);
        assert_eq!(webhook.failure_policy.as_deref(), Some("Ignore"));
        assert_eq!(
            webhook.timeout_seconds.map(i64::from),
            i64::try_from(TIMEOUT.as_secs()).ok()
        );
        let [condition] = webhook.match_conditions.as_deref().unwrap() else {
            panic!("one matchCondition")
        };
        for field in match_condition::UNMOVED {
            let clause = format!("object.?spec.?{field} != oldObject.?spec.?{field}");
            assert!(condition.expression.contains(&clause), "{clause}");
        }
        assert_eq!(
            condition.expression.matches("||").count(),
            match_condition::UNMOVED.len() + 2,
            "clauses"
        );
    }
}
