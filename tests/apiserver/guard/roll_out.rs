//! Replacing the replicas one after the other, as a Deployment does.

use anyhow::ensure;

use super::{Guard, set_endpoints};
use crate::harness::world::World;

/// Tells each replica in turn to end, while its endpoint is taken out, and starts it again. `see_more` waits until
/// enough has happened for the next step to be worth taking.
pub(crate) async fn roll_out(
    world: &World,
    guard: &Guard,
    see_more: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let admin = world.admin().await?;
    let all: Vec<String> = world.network.replicas().iter().map(ToString::to_string).collect();
    for (number, replica) in guard.replicas().iter().enumerate() {
        see_more().await?;
        let others: Vec<String> = all
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .map(|(_, address)| address.clone())
            .collect();
        // As in a cluster: the signal and the news that this endpoint is going travel apart.
        let (status, told) = tokio::join!(replica.terminate(), set_endpoints(&admin, &others));
        told?;
        let status = status?;
        ensure!(status.success(), "replica {number} ended with {status}");
        see_more().await?;
        replica.start().await?;
        set_endpoints(&admin, &all).await?;
    }
    see_more().await
}
