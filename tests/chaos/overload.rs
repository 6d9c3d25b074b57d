//! Five times as many reviews at once as a replica takes: it answers as many, tells the others to come back, and is as
//! it was when they are gone.

use anyhow::{Context, ensure};
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use leasehold::server::Limits;
use tokio::task::JoinSet;

use crate::{
    Test,
    guard::Replica,
    harness::{schedule::Phase, until, world::World},
    process::resident_mebibytes,
    reviews::{Answer, EARLY, Reviewer, answer},
    table, test,
};

/// Times the capacity.
const TIMES: usize = 5;

/// Reviews after the load is gone, each of which must be judged.
const AFTERWARDS: usize = 100;

/// What the Deployment allows a replica, in MiB.
const MEMORY_LIMIT: f64 = 128.0;

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(6),
        "overload::the_rest_is_told_to_come_back",
        the_rest_is_told_to_come_back,
    )]
}

/// What came of one wave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wave {
    judged: usize,
    told_to_come_back: usize,
    other: usize,
}

impl Wave {
    fn all(self) -> usize {
        self.judged + self.told_to_come_back + self.other
    }
}

async fn the_rest_is_told_to_come_back(world: &'static World) -> anyhow::Result<()> {
    let guard = crate::guard(world).await?;
    let replica = guard.replicas().first().context("no replicas")?;
    let reviewer = Reviewer::all(world)
        .await?
        .into_iter()
        .next()
        .context("no replicas")?;
    let limits = Limits::webhook();
    let (memory_before, _) = resident_mebibytes(replica).await?;

    // As many as there are slots, and as many bytes as may be held: reviews of the usual size, then the longest.
    let usual = Bytes::from_static(EARLY.as_bytes());
    let by_number = wave(&reviewer, replica, &usual, limits.max_reviews).await?;
    let recovered = afterwards(&reviewer).await?;
    let longest = padded(EARLY, limits.max_body_bytes);
    let by_bytes = wave(
        &reviewer,
        replica,
        &longest,
        limits.max_held_bytes / limits.max_body_bytes,
    )
    .await?;
    let recovered_again = afterwards(&reviewer).await?;
    let (memory_after, memory_peak) = resident_mebibytes(replica).await?;

    table::add(
        "7. five times capacity",
        format!(
            "{} reviews at once (capacity: {}), then {} of {} MiB (capacity: {} MiB)",
            by_number.all(),
            limits.max_reviews,
            by_bytes.all(),
            limits.max_body_bytes >> 20,
            limits.max_held_bytes >> 20
        ),
        format!(
            "judged {}, told to come back (429) {}, anything else {}; of the long ones judged {}, told to come back {}, \
             anything else {}; judged afterwards {recovered} and {recovered_again} of {AFTERWARDS}; resident \
             {memory_before:.1} MiB before, {memory_peak:.1} at the most, {memory_after:.1} after (limit: {MEMORY_LIMIT})",
            by_number.judged,
            by_number.told_to_come_back,
            by_number.other,
            by_bytes.judged,
            by_bytes.told_to_come_back,
            by_bytes.other,
        ),
    );
    let expected = Wave {
        judged: limits.max_reviews,
        told_to_come_back: (TIMES - 1) * limits.max_reviews,
        other: 0,
    };
    ensure!(by_number == expected, "{by_number:?} in place of {expected:?}");
    ensure!(
        by_bytes.other == 0 && by_bytes.judged > 0 && by_bytes.told_to_come_back > 0,
        "of the long ones: {by_bytes:?}"
    );
    ensure!(
        recovered == AFTERWARDS && recovered_again == AFTERWARDS,
        "not as before when the load is gone"
    );
    ensure!(memory_peak < MEMORY_LIMIT, "{memory_peak} MiB resident");
    guard.wait_until_asked(world).await
}

/// The same review, as long as asked for.
fn padded(review: &str, length: usize) -> Bytes {
    let mut body = review.as_bytes().to_vec();
    body.resize(length, b' ');
    Bytes::from(body)
}

/// [`TIMES`] the capacity at once: as many as there is room for are begun, then all the others come and are answered,
/// and then the first are ended.
async fn wave(reviewer: &Reviewer, replica: &Replica, body: &Bytes, capacity: usize) -> anyhow::Result<Wave> {
    let mut wave = Wave::default();
    let first = Reviews::begin(reviewer, body, capacity).await?;
    until("the first to have begun", || async {
        let metrics = replica.metrics().await?;
        Ok((metrics.sum("leasehold_reviews_in_flight", &[]) >= capacity as f64).then_some(()))
    })
    .await?;
    Reviews::begin(reviewer, body, capacity * (TIMES - 1))
        .await?
        .end(&mut wave)
        .await?;
    first.end(&mut wave).await?;
    Ok(wave)
}

/// Reviews under way, each but for its last byte.
struct Reviews {
    last: Bytes,
    pieces: Vec<mpsc::Sender<Bytes>>,
    answers: JoinSet<anyhow::Result<Answer>>,
}

impl Reviews {
    /// Begins this many, on as few connections as HTTP/2 allows.
    async fn begin(reviewer: &Reviewer, body: &Bytes, many: usize) -> anyhow::Result<Self> {
        let streams = Limits::webhook().max_streams as usize;
        let most = body.slice(..body.len() - 1);
        let mut begun = Self {
            last: body.slice(body.len() - 1..),
            pieces: Vec::new(),
            answers: JoinSet::new(),
        };
        let mut sender = reviewer.connect_http2().await?;
        for number in 0..many {
            if number > 0 && number % streams == 0 {
                sender = reviewer.connect_http2().await?;
            }
            let (mut pieces, stream) = mpsc::channel::<Bytes>(2);
            pieces.try_send(most.clone())?;
            begun.pieces.push(pieces);
            let request = reviewer.request("30s", Body::from_stream(stream.map(anyhow::Ok)))?;
            sender.ready().await?;
            let response = sender.send_request(request);
            begun.answers.spawn(async move { answer(response.await?).await });
        }
        Ok(begun)
    }

    /// Sends what is missing, and counts the answers.
    async fn end(mut self, wave: &mut Wave) -> anyhow::Result<()> {
        for mut pieces in self.pieces {
            // Who was answered already takes no more.
            let _ = pieces.try_send(self.last.clone());
        }
        while let Some(answer) = self.answers.join_next().await {
            let answer = answer??;
            match answer.code {
                200 if !answer.is_allowed()? => wave.judged += 1,
                429 => wave.told_to_come_back += 1,
                _ => wave.other += 1,
            }
        }
        Ok(())
    }
}

/// Reviews one after the other, when the load is gone: how many are judged.
async fn afterwards(reviewer: &Reviewer) -> anyhow::Result<usize> {
    let mut judged = 0;
    for _ in 0..AFTERWARDS {
        let answer = reviewer.connect().await?.review(EARLY).await?;
        judged += usize::from(answer.code == 200 && !answer.is_allowed()?);
    }
    Ok(judged)
}
