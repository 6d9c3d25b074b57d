//! Clients that mean no good, all at once: slow ones, half-open ones, ten thousand idle ones, handshakes without end,
//! bodies that are too long. Honest reviews are answered meanwhile, and memory stays bounded.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::body::Body;
use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::{
    Test,
    guard::Guard,
    harness::{schedule::Phase, until, world::World},
    load::Load,
    process::resident_mebibytes,
    reviews::{EARLY, IN_TIME, Reviewer},
    table, test,
};

/// Connections on which nothing is ever sent.
const IDLE: usize = 10_000;
/// Connections that break off within the first bytes of a handshake.
const HALF_OPEN: u64 = 1000;
/// Handshakes that lead to nothing.
const HANDSHAKES: u64 = 1000;
/// Clients that send a body of which a byte comes now and then.
const SLOW: usize = 100;
/// Bodies longer than any that an API server sends.
const OVERSIZED: u64 = 50;
const OVERSIZED_BYTES: usize = 8 << 20;

/// More idle connections than a replica keeps, opened when all else is there, so that it is full.
const LAST_WAVE: usize = 1000;

/// Clients of each kind at once.
const CLIENTS: usize = 10;

/// What the Deployment allows a replica, in MiB.
const MEMORY_LIMIT: f64 = 128.0;

/// Honest reviews that must be answered while the flood lasts, at the least.
const REVIEWS: u64 = 50;

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(5),
        "flood::honest_reviews_are_answered",
        honest_reviews_are_answered,
    )]
}

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    idle: AtomicU64,
    half_open: AtomicU64,
    handshakes: AtomicU64,
    handshakes_closed: AtomicU64,
    slow: AtomicU64,
    too_long: AtomicU64,
    too_long_closed: AtomicU64,
    over: AtomicBool,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

async fn honest_reviews_are_answered(world: &'static World) -> anyhow::Result<()> {
    let guard = crate::guard(world).await?;
    let replica = guard.replicas().first().context("no replicas")?;
    let reviewer = Reviewer::all(world)
        .await?
        .into_iter()
        .next()
        .context("no replicas")?;
    let (memory_before, _) = resident_mebibytes(replica).await?;
    let refused = refused(guard).await?;
    let failed_open = guard.fail_open_count(world).await?;

    let load = Load::start(world, "chaos-flood", 50).await?;
    load.see_more(100).await?;
    let done = Arc::new(Done::default());
    let kept = tokio::spawn(review_on_one_connection(reviewer.clone(), Arc::clone(&done)));
    let new = tokio::spawn(review_on_new_connections(reviewer.clone(), Arc::clone(&done)));
    let flooded = flood(&reviewer, &done, &load).await;
    done.over.store(true, Ordering::Relaxed);
    let kept = kept.await??;
    let (new_answered, new_closed) = new.await??;
    let (memory_after, memory_peak) = resident_mebibytes(replica).await?;
    let counts = load.stop().await?;
    let refused = self::refused(guard).await? - refused;
    let failed_open = guard.fail_open_count(world).await? - failed_open;
    // All gone: everybody is served at once again.
    until("room for a new connection", || async {
        Ok(match reviewer.connect().await {
            Ok(mut connection) => connection.review(EARLY).await.ok().map(|_| ()),
            Err(_) => None,
        })
    })
    .await?;

    table::add(
        "6. flood",
        format!(
            "{} idle connections, {} half-open, {} handshakes ({} more closed by the cap), {} slow bodies, {} bodies of \
             {} MiB ({} more closed by the cap), all against one replica",
            get(&done.idle),
            get(&done.half_open),
            get(&done.handshakes),
            get(&done.handshakes_closed),
            get(&done.slow),
            get(&done.too_long),
            OVERSIZED_BYTES >> 20,
            get(&done.too_long_closed),
        ),
        format!(
            "reviews answered on a kept connection {kept} of {kept}, on new connections {new_answered} of {} while it mounts and \
             {} of {REVIEWS} when it stands; connections closed by the cap {refused}; resident {memory_before:.1} MiB before, {memory_peak:.1} at the most, \
             {memory_after:.1} after (limit: {MEMORY_LIMIT}); through the API server: {} writes, unreviewed {failed_open}, \
             early takeovers refused {} let through {}, refused that should pass {}",
            new_answered + new_closed,
            flooded.as_ref().map_or_else(|_| "?".to_owned(), u64::to_string),
            counts.written,
            counts.refused_rightly,
            counts.let_through,
            counts.refused_wrongly,
        ),
    );
    let answered_when_full = flooded?;
    ensure!(
        get(&done.idle) == IDLE as u64,
        "opened {} connections only",
        get(&done.idle)
    );
    ensure!(
        kept >= REVIEWS,
        "{kept} reviews were answered on a kept connection"
    );
    ensure!(
        answered_when_full == REVIEWS,
        "{answered_when_full} of {REVIEWS} reviews on new connections were answered when all slots were taken"
    );
    ensure!(memory_peak < MEMORY_LIMIT, "{memory_peak} MiB resident");
    ensure!(counts.refused_wrongly == 0, "{counts:?}");
    Ok(())
}

async fn refused(guard: &Guard) -> anyhow::Result<f64> {
    let labels = [("listener", "webhook")];
    Ok(guard
        .metrics()
        .await?
        .sum("leasehold_connections_refused_total", &labels))
}

/// Honest reviews on one connection that was there before, one after the other: every one must be judged.
async fn review_on_one_connection(reviewer: Reviewer, done: Arc<Done>) -> anyhow::Result<u64> {
    let mut connection = reviewer.connect().await?;
    let mut reviews = 0;
    while !done.over.load(Ordering::Relaxed) || reviews < REVIEWS {
        for (review, passes) in [(EARLY, false), (IN_TIME, true)] {
            let answer = connection.review(review).await.context("on a kept connection")?;
            ensure!(answer.is_allowed()? == passes, "another verdict: {answer:?}");
            reviews += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(reviews)
}

/// The same, each on a connection of its own: how many were answered, and how many met a closed door.
async fn review_on_new_connections(reviewer: Reviewer, done: Arc<Done>) -> anyhow::Result<(u64, u64)> {
    let (mut answered, mut closed) = (0, 0);
    while !done.over.load(Ordering::Relaxed) {
        let answer = async { reviewer.connect().await?.review(EARLY).await };
        match answer.await {
            Ok(answer) => {
                ensure!(!answer.is_allowed()?, "another verdict: {answer:?}");
                answered += 1;
            }
            Err(_) => closed += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((answered, closed))
}

/// All kinds at once, each until its number is reached; those that wait, wait until the last has done its part. Gives
/// how many honest reviews on new connections were answered when everything was there.
async fn flood(reviewer: &Reviewer, done: &Arc<Done>, load: &Load) -> anyhow::Result<u64> {
    let mut waiting: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..SLOW {
        waiting.spawn(slow(reviewer.clone(), Arc::clone(done)));
    }
    until("slow clients to have begun", || async {
        Ok((get(&done.slow) >= SLOW as u64).then_some(()))
    })
    .await?;
    let mut busy: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..CLIENTS {
        busy.spawn(handshakes(reviewer.clone(), Arc::clone(done)));
        busy.spawn(too_long(reviewer.clone(), Arc::clone(done)));
        waiting.spawn(half_open(reviewer.address, Arc::clone(done)));
        waiting.spawn(idle(reviewer.address, Arc::clone(done)));
    }
    while let Some(ended) = busy.join_next().await {
        ended??;
    }
    until("the idle connections to be there", || async {
        let all = get(&done.idle) >= IDLE as u64 && get(&done.half_open) >= HALF_OPEN;
        Ok(all.then_some(()))
    })
    .await
    .with_context(|| format!("{done:?}"))?;
    let mut last_wave = Vec::new();
    for _ in 0..LAST_WAVE {
        last_wave.push(TcpStream::connect(reviewer.address).await?);
    }
    let mut answered = 0;
    for _ in 0..REVIEWS {
        if let Ok(mut connection) = reviewer.connect().await
            && connection.review(EARLY).await.is_ok()
        {
            answered += 1;
        }
    }
    load.see_more(100).await?;
    done.over.store(true, Ordering::Relaxed);
    while let Some(ended) = waiting.join_next().await {
        ended??;
    }
    Ok(answered)
}

async fn idle(address: SocketAddr, done: Arc<Done>) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for _ in 0..IDLE / CLIENTS {
        held.push(
            TcpStream::connect(address)
                .await
                .context("opening idle connections")?,
        );
        add(&done.idle);
    }
    until_over(&done).await;
    Ok(())
}

/// The head of a ClientHello whose rest never comes.
async fn half_open(address: SocketAddr, done: Arc<Done>) -> anyhow::Result<()> {
    let mut held = Vec::new();
    while get(&done.half_open) < HALF_OPEN {
        let mut stream = TcpStream::connect(address).await?;
        // Where the door is closed again already, so be it.
        let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        add(&done.half_open);
        held.push(stream);
    }
    until_over(&done).await;
    Ok(())
}

/// Handshakes, one after the other, each the end of its connection.
async fn handshakes(reviewer: Reviewer, done: Arc<Done>) -> anyhow::Result<()> {
    while get(&done.handshakes) < HANDSHAKES {
        let counter = match reviewer.handshake(b"http/1.1").await {
            Ok(_) => &done.handshakes,
            Err(_) => &done.handshakes_closed,
        };
        add(counter);
    }
    Ok(())
}

async fn until_over(done: &Done) {
    while !done.over.load(Ordering::Relaxed) {
        tokio::time::sleep(crate::harness::POLL).await;
    }
}

/// A body that comes a byte at a time, for as long as the server takes it.
async fn slow(reviewer: Reviewer, done: Arc<Done>) -> anyhow::Result<()> {
    while !done.over.load(Ordering::Relaxed) {
        let Ok(mut stream) = reviewer.handshake(b"http/1.1").await else {
            tokio::time::sleep(crate::harness::POLL).await;
            continue;
        };
        let head = "POST /validate?timeout=30s HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\n\
                    Content-Length: 4096\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        add(&done.slow);
        while !done.over.load(Ordering::Relaxed) && stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(crate::harness::POLL).await;
        }
    }
    Ok(())
}

/// Bodies that are too long, one after the other, whose length is told beforehand and is not, in turn: each is refused.
async fn too_long(reviewer: Reviewer, done: Arc<Done>) -> anyhow::Result<()> {
    let body = Bytes::from(vec![b' '; OVERSIZED_BYTES]);
    let mut told = false;
    while get(&done.too_long) < OVERSIZED {
        told = !told;
        let body = if told {
            Body::from(body.clone())
        } else {
            Body::from_stream(futures::stream::iter([anyhow::Ok(body.clone())]))
        };
        let answer = async { reviewer.connect().await?.send(body).await };
        match answer.await {
            Ok(answer) => {
                ensure!(
                    [413, 429].contains(&answer.code),
                    "a body that is too long: {answer:?}"
                );
                add(&done.too_long);
            }
            Err(_) => add(&done.too_long_closed),
        }
    }
    Ok(())
}
