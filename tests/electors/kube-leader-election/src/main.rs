//! The crate kube-leader-election, as its README has it embedded: try to acquire or renew in a loop, step down at the
//! end. Prints a JSON line an event, like the elector beside it:
//!
//! - `started-leading`, `stopped-leading`: what this instance believes;
//! - `new-leader` with `leader`: whom it sees leading;
//! - `failed` with `message`: an attempt failed; what it believes stays.
//!
//! `kube-leader-election-elector KUBECONFIG NAMESPACE LEASE IDENTITY SECONDS RETRY_MILLISECONDS`; SIGTERM steps down.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
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
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let lock = LeaseLock::new(
        kube::Client::try_from(config)?,
        namespace,
        LeaseLockParams {
            lease_name: lease.clone(),
            holder_id: identity.clone(),
            lease_ttl: Duration::from_secs(seconds.parse().context("SECONDS")?),
        },
    );
    let retry = Duration::from_millis(retry.parse().context("RETRY_MILLISECONDS")?);
    let emit = |event: &str, more: (&str, &str)| {
        let mut line = json!({"event": event, "identity": identity});
        line[more.0] = Value::from(more.1);
        println!("{line}");
    };

    let mut leading = false;
    let mut seen = String::new();
    loop {
        let attempt = tokio::select! {
            attempt = lock.try_acquire_or_renew() => attempt,
            _ = terminate.recv() => break,
        };
        match attempt {
            Ok(result) => {
                let leads = matches!(result, LeaseLockResult::Acquired(_));
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
                let holder = result
                    .lease()
                    .and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
                let holder = holder.unwrap_or_default();
                if holder != seen {
                    seen = holder;
                    emit("new-leader", ("leader", &seen));
                }
            }
            Err(error) => emit("failed", ("message", &error.to_string())),
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => {}
            _ = terminate.recv() => break,
        }
    }
    if leading {
        lock.step_down().await?;
        emit("stopped-leading", ("lease", lease));
    }
    Ok(())
}
