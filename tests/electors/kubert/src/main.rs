//! The crate kubert, as Linkerd embeds it: an empty Lease is created, and a task claims and renews it. Prints a JSON
//! line an event, like the elector beside it:
//!
//! - `started-leading`, `stopped-leading`: what this instance believes;
//! - `new-leader` with `leader`: whom it sees leading;
//! - `failed` with `message`: the task ended; it is started anew, as the pod would be.
//!
//! `kubert-elector KUBECONFIG NAMESPACE LEASE IDENTITY SECONDS RETRY_MILLISECONDS`; SIGTERM vacates.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube_client::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use kubert::lease::{ClaimParams, LeaseManager};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, namespace, lease, identity, seconds, retry] = arguments.as_slice() else {
        anyhow::bail!("needs KUBECONFIG NAMESPACE LEASE IDENTITY SECONDS RETRY_MILLISECONDS");
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("KUBECONFIG")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let leases: Api<Lease> = Api::namespaced(Client::try_from(config)?, namespace);
    let lease_duration = Duration::from_secs(seconds.parse().context("SECONDS")?);
    let retry = Duration::from_millis(retry.parse().context("RETRY_MILLISECONDS")?);
    let emit = |event: &str, more: (&str, &str)| {
        let mut line = json!({"event": event, "identity": identity});
        line[more.0] = Value::from(more.1);
        println!("{line}");
    };

    let empty = Lease {
        metadata: ObjectMeta {
            name: Some(lease.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    };
    match leases.create(&PostParams::default(), &empty).await {
        Err(kube_client::Error::Api(error)) if error.code == 409 => {}
        created => {
            created?;
        }
    }

    let params = ClaimParams {
        lease_duration,
        // Half of it, so that a slow machine misses no renewal: the default of 1 s is for leases of 30 s.
        renew_grace_period: lease_duration / 2,
    };
    let mut leading = false;
    let mut seen = String::new();
    'runs: loop {
        let manager = LeaseManager::init(leases.clone(), lease).await?;
        let (mut claims, task) = match manager.spawn(identity, params.clone()).await {
            Ok(spawned) => spawned,
            Err(error) => {
                emit("failed", ("message", &error.to_string()));
                tokio::select! {
                    () = tokio::time::sleep(retry) => continue,
                    _ = terminate.recv() => break,
                }
            }
        };
        loop {
            let claim = claims.borrow_and_update().clone();
            let leads = claim.is_current_for(identity);
            if leads != leading {
                leading = leads;
                emit(
                    if leads {
                        "started-leading"
                    } else {
                        "stopped-leading"
                    },
                    ("lease", lease),
                );
            }
            if claim.holder != seen {
                seen = claim.holder.clone();
                emit("new-leader", ("leader", &seen));
            }
            tokio::select! {
                changed = claims.changed() => if changed.is_err() { break },
                // Nobody tells of a claim that expires.
                () = claim.expire(), if claim.is_current() => {}
                _ = terminate.recv() => {
                    drop(claims);
                    task.await??;
                    if leading {
                        emit("stopped-leading", ("lease", lease));
                    }
                    break 'runs;
                }
            }
        }
        if let Err(error) = task.await? {
            emit("failed", ("message", &error.to_string()));
        }
    }
    Ok(())
}
