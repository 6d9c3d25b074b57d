//! The writes that are measured, each in every namespace in turn.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pairs::Series;
use crate::harness::{api::Reply, leases::Leases};

const RENEWALS: usize = 1_500;
const TERMS: usize = 750;
const TAKEOVERS: usize = 500;
/// Writes of each kind that do not count: connections, compiled expressions, caches.
const WARM_UP: usize = 50;

/// The shortest duration that the rules allow.
const SECONDS: i64 = 5;

/// Writes a lease in every namespace, `rounds` times after the warm-up, and takes the time.
async fn in_turn(
    all: &[Leases],
    current: &mut [Value],
    rounds: usize,
    series: &mut [&mut Series],
    kinds: &[fn(&mut Value)],
) -> anyhow::Result<()> {
    for round in 0..WARM_UP + rounds {
        for (kind, change) in kinds.iter().enumerate() {
            for at in order(round, all.len()) {
                let lease = &mut current[at];
                change(lease);
                let (reply, took) = timed(&all[at], "lock", lease).await?;
                if round >= WARM_UP {
                    series[kind].note(at, took);
                }
                *lease = reply.accepted()?;
            }
        }
    }
    Ok(())
}

/// The namespaces in another order each round: what one write leaves to the API server (a collection of garbage, the
/// audit log) the next one pays, and that is not to be the same one always.
fn order(round: usize, namespaces: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..namespaces).collect();
    // Marsaglia's xorshift64, from the round's own seed.
    let mut state = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for last in (1..namespaces).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

async fn timed(leases: &Leases, name: &str, lease: &Value) -> anyhow::Result<(Reply, Duration)> {
    let manager = lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let started = Instant::now();
    let reply = put(leases, name, &manager, lease).await?;
    Ok((reply, started.elapsed()))
}

async fn create_locks(all: &[Leases]) -> anyhow::Result<Vec<Value>> {
    let mut current = Vec::new();
    for leases in all {
        let lease = leases.create("lock", "a", held("a", 15)).await?;
        current.push(lease.accepted()?);
    }
    Ok(current)
}

pub(super) async fn renew(all: &[Leases]) -> anyhow::Result<Series> {
    let mut series = Series::of(all.len());
    let mut current = create_locks(all).await?;
    let renewed = |lease: &mut Value| lease["spec"]["renewTime"] = now().into();
    in_turn(all, &mut current, RENEWALS, &mut [&mut series], &[renewed]).await?;
    Ok(series)
}

/// Of the leases that were renewed: each is released, and acquired anew.
pub(super) async fn acquire_and_release(all: &[Leases]) -> anyhow::Result<(Series, Series)> {
    let (mut acquisitions, mut releases) = (Series::of(all.len()), Series::of(all.len()));
    let mut current = Vec::new();
    for leases in all {
        current.push(leases.get("lock").await?);
    }
    // As client-go does.
    let released = |lease: &mut Value| {
        let spec = &mut lease["spec"];
        spec["holderIdentity"] = "".into();
        spec["leaseDurationSeconds"] = 1.into();
        spec["renewTime"] = now().into();
        spec["acquireTime"] = now().into();
    };
    let acquired = |lease: &mut Value| {
        let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
        lease["spec"] = held("a", 15);
        lease["spec"]["leaseTransitions"] = (transitions + 1).into();
    };
    in_turn(
        all,
        &mut current,
        TERMS,
        &mut [&mut releases, &mut acquisitions],
        &[released, acquired],
    )
    .await?;
    Ok((acquisitions, releases))
}

/// Creates as many leases as are to be taken over, and waits once until all of them have expired.
pub(super) async fn prepare_takeovers(all: &[Leases]) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut prepared = Vec::new();
    for number in 0..WARM_UP + TAKEOVERS {
        let mut round = Vec::new();
        for leases in all {
            let lease = leases.create(&name(number), "a", held("a", SECONDS)).await?;
            round.push(lease.accepted()?);
        }
        prepared.push(round);
    }
    let api = &all.first().context("no namespace")?.api;
    // One second for the stamp's floor.
    api.until_elapsed(api.now().await?, SECONDS + 1).await?;
    Ok(prepared)
}

pub(super) async fn take_over(all: &[Leases], prepared: Vec<Vec<Value>>) -> anyhow::Result<Series> {
    let mut series = Series::of(all.len());
    for (round, leases) in prepared.into_iter().enumerate() {
        let leases: Vec<_> = leases.into_iter().map(taken_over).collect();
        for at in order(round, all.len()) {
            let (reply, took) = timed(&all[at], &name(round), &leases[at]).await?;
            if round >= WARM_UP {
                series.note(at, took);
            }
            reply.accepted()?;
        }
    }
    Ok(series)
}

/// The time as a client writes it.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

fn name(number: usize) -> String {
    format!("taken-{number}")
}

pub(super) fn held(holder: &str, seconds: i64) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": now(),
        "renewTime": now(),
        "leaseTransitions": 0,
    })
}

/// The lease as its next holder writes it, with the resourceVersion that it read.
pub(super) fn taken_over(mut lease: Value) -> Value {
    lease["spec"] = held("b", 15);
    lease["spec"]["leaseTransitions"] = 1.into();
    lease
}

pub(super) async fn put(leases: &Leases, name: &str, manager: &str, lease: &Value) -> anyhow::Result<Reply> {
    let path = format!("{}?fieldManager={manager}", leases.path(name));
    let body = lease.to_string().into_bytes();
    leases
        .api
        .request(Method::PUT, &path, "application/json", body)
        .await
}
