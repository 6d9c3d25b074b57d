//! Which tests may run at the same time.
//!
//! Most of the time of these tests is waiting for leases to expire, so tests overlap, but only within a phase: tests
//! that ask for no denial at all must not run beside tests that provoke denials, and a test that kills Leasehold runs
//! alone. Phases follow one another in the order of their definition.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
};

/// The minor version of Kubernetes from which on a policy may be made while another judges. Before, the API server's
/// compiler of policies wrote to a map that all evaluations read, without a lock, and Go ends a program for that
/// (kubernetes#135757, mended by kubernetes#135759).
const POLICIES_MADE_SAFELY: u32 = 36;

/// What a test needs of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Only the recording webhook is registered.
    Recorded,
    /// The same, and admission policies judge inside the API server.
    InProcess,
    /// Leasehold guards, in mode enforce, and nobody misbehaves.
    Undisturbed,
    /// Leasehold guards, in mode enforce, and everybody misbehaves.
    Attacked,
    /// Alone with the control plane, one test at a time; the number orders these among themselves.
    Alone(u8),
}

impl Phase {
    /// Whether tests of this phase may overlap, on this minor version of Kubernetes.
    const fn is_shared(self, minor_version: u32) -> bool {
        match self {
            Self::Alone(_) => false,
            Self::InProcess => minor_version >= POLICIES_MADE_SAFELY,
            Self::Recorded | Self::Undisturbed | Self::Attacked => true,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    running: Option<(Phase, usize)>,
    waiting: BTreeMap<Phase, usize>,
}

/// Lets tests of one phase in at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    minor_version: u32,
    state: Mutex<State>,
    changed: Condvar,
}

/// Held while a test runs.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Schedule);

impl Schedule {
    /// For tests on this minor version of Kubernetes.
    pub(crate) fn new(minor_version: u32) -> Self {
        Self {
            minor_version,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits until tests of this phase may run.
    pub(crate) fn enter(&self, phase: Phase) -> Turn<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.waiting.entry(phase).or_default() += 1;
        loop {
            let may = match state.running {
                Some((running, _)) => running == phase && phase.is_shared(self.minor_version),
                // The earliest of the phases that wait goes first.
                None => state
                    .waiting
                    .first_key_value()
                    .is_some_and(|(first, _)| *first == phase),
            };
            if may {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(waiting) = state.waiting.get_mut(&phase) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&phase);
            }
        }
        let running = state.running.map_or(0, |(_, running)| running);
        state.running = Some((phase, running + 1));
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = match state.running {
            Some((phase, running)) if running > 1 => Some((phase, running - 1)),
            _ => None,
        };
        self.0.changed.notify_all();
    }
}
