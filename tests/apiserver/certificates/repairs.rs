//! What somebody broke in the Secret or in the registration, and what comes of it.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{
    keepers::{Keepers, State},
    load::Load,
};
use crate::harness::{until, world::World};

pub(super) async fn what_is_broken_is_repaired(world: &'static World) -> anyhow::Result<()> {
    let keepers = Keepers::start(world, "repairs").await?;
    let mut before = keepers.wait_for("the pair to serve", State::is_settled).await?;
    // What happens to the Secret fails no handshake: the replicas serve on, and caBundle keeps what they serve by.
    let mut load = Load::start(world, &keepers).await?;
    let garbage = "bm90IFBFTQ==";
    let patches = [
        (
            "a leaf without its key",
            json!({"data": {"tls.key": null}}),
            "leaf",
        ),
        (
            "a leaf that is none",
            json!({"data": {"tls.crt": garbage}}),
            "leaf",
        ),
        (
            "a CA whose key is none",
            json!({"data": {"ca.key": garbage}}),
            "authority",
        ),
        (
            "a CA that is none",
            json!({"data": {"ca.crt": garbage}}),
            "authority",
        ),
        ("an empty Secret", json!({"data": null}), "authority"),
        ("no Secret", Value::Null, "authority"),
    ];
    for (what, patch, repaired) in patches {
        let repairs_before = repairs(&keepers, repaired).await?;
        if patch.is_null() {
            keepers.admin.delete(&keepers.secret_path()).await?.accepted()?;
        } else {
            keepers.edit(patch).await?.accepted()?;
        }
        before = keepers
            .wait_for(what, |now| {
                now.is_settled() && now.leaf != before.leaf && now.reports.len() == 2
            })
            .await?;
        until("the repair to be counted", || async {
            Ok((repairs(&keepers, repaired).await? > repairs_before).then_some(()))
        })
        .await
        .context(what)?;
        load.ensure_unharmed().context(what)?;
    }
    // Amid a rotation caBundle keeps what the Secret has lost.
    let old = before.authority;
    keepers.ask("ca").await?;
    keepers
        .wait_for("an old CA beside the new one", |now| !now.retiring.is_empty())
        .await?;
    let without = json!({"data": {"retiring-ca.crt": null}});
    keepers.edit(without).await?.accepted()?;
    before = keepers
        .wait_for("the end of the rotation", |now| {
            now.is_settled() && now.authority != old
        })
        .await?;
    load.ensure_unharmed().context("a lost retiring-ca.crt")?;
    load.stop().await?;

    // A caBundle is put back as it was, in every webhook, and said so.
    let stranger = crate::harness::world::base64(world.plane().await?.authority().pem());
    for (what, bundle) in [("no caBundle", Value::Null), ("a stranger's", json!(stranger))] {
        let repairs_before = repairs(&keepers, "bundle").await?;
        let path = keepers.registration_path();
        let mut registration = keepers.admin.get(&path).await?.accepted()?;
        *registration
            .pointer_mut("/webhooks/1/clientConfig/caBundle")
            .context("no caBundle")? = bundle;
        let body = registration.to_string().into_bytes();
        keepers
            .admin
            .request(http::Method::PUT, &path, "application/json", body)
            .await?
            .accepted()?;
        until("the repair to be counted", || async {
            Ok((repairs(&keepers, "bundle").await? > repairs_before).then_some(()))
        })
        .await
        .context(what)?;
        let after = keepers.wait_for(what, State::is_settled).await?;
        ensure!(after.leaf == before.leaf, "{what}: a leaf was issued for it");
    }
    let mut logs = String::new();
    for replica in &keepers.replicas {
        logs.push_str(&replica.log()?);
    }
    for said in [
        "the CA in the Secret is made anew",
        "the leaf in the Secret is made anew",
        "a caBundle lacked the serving CA",
    ] {
        ensure!(logs.contains(said), "the logs do not say {said:?}");
    }
    keepers.end().await
}

/// Nobody asks: by their lives alone, CA and leaf are replaced, and no handshake fails.
/// Another CA stands in it than the one that the API servers know.
pub(super) async fn an_older_secret_that_is_restored_fails_no_handshake(
    world: &'static World,
) -> anyhow::Result<()> {
    let keepers = Keepers::start(world, "restored").await?;
    let older = keepers.wait_for("the pair to serve", State::is_settled).await?;
    let stored = keepers.admin.get(&keepers.secret_path()).await?.accepted()?;
    keepers.ask("ca").await?;
    keepers
        .wait_for("another CA", |now| {
            now.is_settled() && now.authority != older.authority
        })
        .await?;
    let mut load = Load::start(world, &keepers).await?;
    keepers.edit(json!({"data": stored["data"]})).await?.accepted()?;
    keepers
        .wait_for("the older CA to be in use", |now| {
            now.is_settled() && now.authority == older.authority && now.leaf == older.leaf
        })
        .await?;
    load.ensure_unharmed().context("an older Secret")?;
    let seen = load.stop().await?;
    ensure!(seen.handshakes > 0, "nobody shook hands: {seen:?}");
    for replica in &keepers.replicas {
        let log = replica.log()?;
        ensure!(
            log.contains("is of a CA that the API servers may not know yet"),
            "the log does not say why it waits: {log}"
        );
    }
    keepers.end().await
}

async fn repairs(keepers: &Keepers, what: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for replica in &keepers.replicas {
        let metrics = replica.metrics().await?;
        sum += metrics.sum("leasehold_certificates_repairs_total", &[("what", what)]);
    }
    Ok(sum)
}
