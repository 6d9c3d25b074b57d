//! Plays one act: starts the electors, gives them their cues, and tells what happens.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    elector::{Elector, Surroundings},
    event::{Event, EventKind, StopReason},
    ledger::Ledger,
    narrator::Narrator,
    screen::Screen,
    script::{Act, Action, Cue},
    store::{LeaseKey, LeaseStore},
    timeline,
};

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// What came of an act.
#[derive(Debug)]
pub struct Played {
    /// Who led when.
    pub ledger: Ledger,
    /// Writes that the electors sent.
    pub writes: u64,
    /// All that happened, in order.
    pub events: Vec<Event>,
    /// How long it was.
    pub length: Duration,
}

impl Played {
    /// How long there were two leaders of one lease, all leases together.
    pub fn double_leadership(&self) -> Duration {
        self.ledger.total_double_leadership(self.length)
    }

    /// Leaders that lost their lease against their will.
    pub fn leaders_pushed_out(&self) -> usize {
        self.count(|kind| *kind == EventKind::Stops(StopReason::Lost))
    }

    /// How often a lease came to a leader: created, acquired or taken over.
    pub fn acquisitions(&self) -> usize {
        self.count(|kind| matches!(kind, EventKind::Leads(_)))
    }

    fn count(&self, is: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| is(&event.kind)).count()
    }
}

/// A running elector.
struct Player {
    task: AbortHandle,
    leave: CancellationToken,
}

/// The electors of one act; all are stopped when it is dropped.
struct Stage<'a, S> {
    act: &'a Act,
    surroundings: Surroundings<S>,
    players: Vec<Option<Player>>,
    tasks: JoinSet<()>,
}

/// Plays `act` on `store`.
///
/// # Errors
/// Those of the screen.
pub async fn play<S: LeaseStore, W: Write>(
    act: &Act,
    store: &Arc<S>,
    clock: Clock,
    screen: &mut Screen<W>,
) -> io::Result<Played> {
    let (events, mut told) = mpsc::unbounded_channel();
    let writes = Arc::new(AtomicU64::new(0));
    let surroundings = Surroundings {
        store: Arc::clone(store),
        clock,
        events,
        writes: Arc::clone(&writes),
    };
    let players = act.cast.iter().map(|_| None).collect();
    let mut stage = Stage {
        act,
        surroundings,
        players,
        tasks: JoinSet::new(),
    };

    let mut ledger = Ledger::new(leases(act));
    let mut narrator = Narrator::default();
    let mut happened = Vec::new();
    let began = Instant::now();
    let curtain = began + act.length;
    let mut cues = act.cues.iter().peekable();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let next_cue = cues.peek().map_or(curtain, |cue| began + cue.at);
        tokio::select! {
            biased;
            // Never none: the stage holds a sender itself.
            Some(event) = told.recv() => {
                ledger.record(&event);
                screen.print(narrator.tell(act, &ledger, &event))?;
                happened.push(event);
            }
            () = sleep_until(next_cue) => match cues.next() {
                Some(cue) => stage.give(cue),
                None => break,
            },
            _ = frames.tick(), if screen.is_live() => {
                screen.show(timeline::draw(act, &ledger, began.elapsed()))?;
            }
        }
    }
    drop(stage);
    ledger.close(curtain);
    screen.settle(timeline::draw(act, &ledger, act.length))?;
    Ok(Played {
        ledger,
        writes: writes.load(Ordering::Relaxed),
        events: happened,
        length: act.length,
    })
}

/// For each elector of the cast, the number of its lease.
fn leases(act: &Act) -> Vec<usize> {
    let first = |lease: &str| {
        act.cast
            .iter()
            .position(|role| role.lease == lease)
            .unwrap_or_default()
    };
    act.cast.iter().map(|role| first(role.lease)).collect()
}

impl<S: LeaseStore> Stage<'_, S> {
    fn give(&mut self, cue: &Cue) {
        match cue.action {
            Action::Start => self.start(cue.role),
            Action::Leave => {
                if let Some(player) = self.players.get(cue.role).and_then(Option::as_ref) {
                    player.leave.cancel();
                }
            }
            Action::Kill => {
                if let Some(player) = self.players.get(cue.role).and_then(Option::as_ref) {
                    player.task.abort();
                    self.tell(cue.role, EventKind::Killed);
                }
            }
        }
    }

    fn start(&mut self, index: usize) {
        let (Some(role), Some(player)) = (self.act.cast.get(index), self.players.get_mut(index)) else {
            return;
        };
        let elector = Elector {
            index,
            identity: role.identity.to_owned(),
            key: LeaseKey::new(self.act.namespace, role.lease),
            timing: role.timing,
            flaw: role.flaw,
            surroundings: self.surroundings.clone(),
        };
        let leave = CancellationToken::new();
        let task = self.tasks.spawn(elector.run(leave.clone()));
        *player = Some(Player { task, leave });
        self.tell(index, EventKind::Joined);
    }

    fn tell(&self, elector: usize, kind: EventKind) {
        // The receiver lives as long as the stage.
        let _ = self.surroundings.events.send(Event {
            at: Instant::now(),
            elector,
            kind,
        });
    }
}
