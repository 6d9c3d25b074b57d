//! Sets the stage, tells the story on it, and clears away, however it ends.

use std::{
    io::{self, Stdout, Write as _},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    DemoError,
    clock::Clock,
    control_plane::{Binaries, ControlPlane},
    guard::Guard,
    kube_store::KubeStore,
    memory_store::MemoryStore,
    registration,
    screen::{Manner, Screen},
    script::GUARDED,
    story::{self, Setting, Told},
    webhook::TlsWebhook,
};

/// How a demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to the end, and the guard let no two lead at once.
    Told,
    /// It was told to the end, but there were two leaders in spite of the guard.
    GuardFailed,
    /// A signal of this number stopped it.
    Interrupted(u8),
    /// Whoever read what it prints has gone.
    ReaderGone,
}

/// Plays the demo: on a store in this process, or, with a folder of `assets`, on a real API server started from it.
///
/// # Errors
/// What kept it from being told.
pub async fn run(assets: Option<&Path>) -> Result<Ending, DemoError> {
    // First of all, so that no signal ends the process with something left behind.
    let mut interruption = Interruption::listen().map_err(DemoError::Signals)?;
    let mut control_plane = match assets {
        Some(folder) => Some(ControlPlane::new(Binaries::find(folder)?)?),
        None => None,
    };
    let told = tokio::select! {
        biased;
        signal = interruption.next() => Err(signal),
        told = perform(control_plane.as_mut()) => Ok(told),
    };
    if let Some(control_plane) = control_plane {
        control_plane.stop().await;
    }
    match told {
        Err(signal) => Ok(Ending::Interrupted(signal)),
        Ok(Err(DemoError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Ending::ReaderGone)
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok(told)) if told.guarded.double_leadership().is_zero() => Ok(Ending::Told),
        Ok(Ok(_)) => Ok(Ending::GuardFailed),
    }
}

async fn perform(control_plane: Option<&mut ControlPlane>) -> Result<Told, DemoError> {
    let mut screen = Screen::new(io::stdout(), Manner::of_stdout());
    let guard = Guard::start().await?;
    let clock = Clock::starting_at(Timestamp::now());
    let at = format!("{}, TLS, default policy", guard.url());
    match control_plane {
        None => {
            let webhook = TlsWebhook::new(guard.address, guard.authority.certificate())?;
            let store = Arc::new(MemoryStore::new(clock, GUARDED, webhook));
            let store_is = "a store in this process that acts like the API server".to_owned();
            story::tell(
                &store,
                clock,
                &Setting {
                    store: store_is,
                    guard: at,
                },
                &mut screen,
            )
            .await
        }
        Some(control_plane) => {
            announce(&mut screen)?;
            let client = control_plane.start(&guard.authority).await?;
            registration::register(&client, &guard).await?;
            let version = client.apiserver_version().await.map_err(|error| {
                DemoError::ControlPlane(format!("cannot ask for the API server's version: {error}"))
            })?;
            let store = Arc::new(KubeStore::new(client));
            let store_is = format!("a real kube-apiserver {}, with etcd", version.git_version);
            story::tell(
                &store,
                clock,
                &Setting {
                    store: store_is,
                    guard: at,
                },
                &mut screen,
            )
            .await
        }
    }
}

fn announce(screen: &mut Screen<Stdout>) -> Result<(), DemoError> {
    screen.print([
        "Starting etcd and kube-apiserver (some seconds) ...".to_owned(),
        String::new(),
    ])?;
    io::stdout().flush()?;
    Ok(())
}

/// Signals that ask the demo to stop.
struct Interruption {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interruption {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hang_up.recv() => 1,
        }
    }
}
