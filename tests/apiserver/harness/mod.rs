//! What the tests stand on: binaries, processes, a control plane, a raw client, a recording webhook, electors.

pub(crate) mod api;
pub(crate) mod assets;
pub(crate) mod audit;
pub(crate) mod certificates;
pub(crate) mod control_plane;
#[allow(dead_code, reason = "for tests/conformance and tests/chaos")]
pub(crate) mod faketime;
pub(crate) mod leases;
pub(crate) mod network;
pub(crate) mod pods;
#[allow(dead_code, reason = "for tests/apiserver and the benchmark")]
pub(crate) mod policies;
pub(crate) mod process;
#[allow(dead_code, reason = "for tests/conformance")]
pub(crate) mod proxy;
pub(crate) mod recorder;
pub(crate) mod run;
pub(crate) mod samples;
pub(crate) mod schedule;
pub(crate) mod tls;
pub(crate) mod world;

use std::{future::Future, time::Duration};

/// How often to look at what cannot be waited for.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// How long anything may take that is bound to happen. No test measures time by it: it turns a hang into a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is a value, and fails with what was awaited after [`PATIENCE`].
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let looking = async {
        loop {
            if let Some(value) = look().await? {
                return Ok(value);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(found) => found,
        Err(_) => anyhow::bail!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}
