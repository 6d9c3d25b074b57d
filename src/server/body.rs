//! Reading request bodies: bounded in length, in time and in what all of them together may hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;

/// How much of a body that is refused is read on and thrown away, in bytes: past that, the connection is
/// closed.
///
/// On HTTP/1.1 the next request can only be served once this one's body has passed. 64 MiB is three times the
/// longest that an API server sends; reading it costs time, bounded by the body's deadline, and no memory.
const MAX_DISCARDED_BYTES: usize = 64 << 20;

/// Bytes of bodies that are held at this moment, over all reviews.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            max,
        })
    }
}

/// One body's part of the [`Budget`], given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.budget.max {
            Err(BodyError::NoRoom)
        } else {
            Ok(())
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that was read whole.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _share: Share,
}

/// Why a body was not read whole.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It broke off, or was not framed as HTTP says.
    Broken,
    /// The deadline passed.
    Late,
    /// All bodies together would hold too much.
    NoRoom,
    /// It is longer than one may be.
    TooLong,
}

/// Reads `body` to its end.
pub(super) async fn read(
    body: &mut Body,
    max_bytes: usize,
    budget: &Arc<Budget>,
    deadline: Instant,
) -> Result<Held, BodyError> {
    // Where its length is told beforehand, a body that is too long takes no room from the others.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(BodyError::TooLong);
    }
    let mut share = Share {
        budget: Arc::clone(budget),
        bytes: 0,
    };
    // The common review comes in one piece, which is taken as it is.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(piece) = next_piece(body, deadline).await? {
        if share.bytes + piece.len() > max_bytes {
            return Err(BodyError::TooLong);
        }
        share.grow(piece.len())?;
        if first.is_empty() {
            first = piece;
        } else {
            if rest.is_empty() {
                // In one allocation where the length is known: growing would take up to three times as much for a moment.
                // What was announced and never comes takes no memory, only addresses.
                let more = usize::try_from(body.size_hint().lower()).unwrap_or(max_bytes);
                rest.reserve((first.len() + piece.len()).saturating_add(more).min(max_bytes));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&piece);
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Held { bytes, _share: share })
}

/// Reads `body` to its end and keeps nothing, so that the connection can serve the next request. Gives up at
/// the deadline and after [`MAX_DISCARDED_BYTES`]; the connection is then closed.
pub(super) async fn discard(mut body: Body, deadline: Instant) {
    let mut discarded = 0;
    while let Ok(Some(piece)) = next_piece(&mut body, deadline).await {
        discarded += piece.len();
        if discarded > MAX_DISCARDED_BYTES {
            return;
        }
    }
}

async fn next_piece(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(BodyError::Late),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_error))) => return Err(BodyError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers say nothing to us.
        if let Ok(piece) = frame.into_data()
            && !piece.is_empty()
        {
            return Ok(Some(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use super::*;

    fn mk_body(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|&piece| Ok::<_, Infallible>(Bytes::from_static(piece)))
            .collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn a_body_in_any_number_of_pieces_comes_back_whole_up_to_the_bound() {
        let budget = Budget::new(100);
        let cuts: [&[&[u8]]; 4] = [&[], &[b"abcdef"], &[b"ab", b"cdef"], &[b"a", b"", b"bc", b"def"]];
        for pieces in cuts {
            let read = read(&mut mk_body(pieces), 6, &budget, soon()).await.unwrap();
            assert_eq!(read.bytes, pieces.concat());
        }
        for pieces in [&[&b"abcdefg"[..]][..], &[b"abcdef", b"g"]] {
            let read = read(&mut mk_body(pieces), 6, &budget, soon()).await;
            assert!(matches!(read, Err(BodyError::TooLong)), "{read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_held_counts_against_the_others_until_it_is_dropped() {
        let budget = Budget::new(10);
        let first = read(&mut mk_body(&[b"abcdef"]), 10, &budget, soon())
            .await
            .unwrap();
        let second = read(&mut mk_body(&[b"ab", b"cdef"]), 10, &budget, soon()).await;
        assert!(matches!(second, Err(BodyError::NoRoom)), "{second:?}");
        drop(first);
        let third = read(&mut mk_body(&[b"abcdefghij"]), 10, &budget, soon()).await;
        assert!(third.is_ok(), "what a refused body held was given back too");
        drop(third);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_that_says_that_it_is_too_long_takes_no_room() {
        let budget = Budget::new(0);
        let read = read(&mut Body::from("abcdefg"), 6, &budget, soon()).await;
        assert!(matches!(read, Err(BodyError::TooLong)), "{read:?}");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_late() {
        let body = || Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
        let passed = Instant::now();
        let read = read(&mut body(), 10, &Budget::new(10), passed).await;
        assert!(matches!(read, Err(BodyError::Late)), "{read:?}");
        discard(body(), passed).await;
    }
}
