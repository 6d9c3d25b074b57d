//! The demo: two leaders at once, and then the guard that stops it.
//!
//! [`script`] says who plays, [`elector`] is how they play, on a [`store::LeaseStore`]: [`memory_store`], or a
//! real API server. [`stage`] runs an act, [`ledger`] keeps who led when, [`narrator`] and [`timeline`] tell it
//! on a [`screen`]. [`story`] is the whole.

pub mod certificates;
pub mod clock;
pub mod control_plane;
pub mod elector;
pub mod event;
pub mod guard;
pub mod kube_store;
pub mod ledger;
pub mod match_condition;
pub mod memory_store;
pub mod narrator;
pub mod registration;
pub mod review;
pub mod run;
pub mod screen;
pub mod script;
pub mod stage;
pub mod stamps;
pub mod store;
pub mod story;
pub mod timeline;
pub mod webhook;

use std::path::PathBuf;

/// Why the demo broke off.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// What it prints cannot be written.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
    /// Signals cannot be listened to.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The guard did not start.
    #[error("cannot start the guard on loopback: cannot {doing}")]
    Guard {
        /// What it was about to do.
        doing: &'static str,
        /// What stopped it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot reach the guard.
    #[error(transparent)]
    Webhook(#[from] webhook::WebhookError),
    /// Programs are not where they were said to be.
    #[error(
        "no {missing} in {}, which --assets or KUBEBUILDER_ASSETS names; in a checkout of Leasehold \
         `tests/controlplane/build.sh` builds them and prints their folder",
        folder.display()
    )]
    MissingBinaries {
        /// Where they should be.
        folder: PathBuf,
        /// Which.
        missing: String,
    },
    /// The real API server did not start.
    #[error("cannot play on a real API server: {0}")]
    ControlPlane(String),
    /// The guard could not be registered with it.
    #[error("cannot register the guard at the API server: {0}")]
    Registration(store::ApiError),
    /// The API server's side did not tell what it counted.
    #[error("cannot read how many reviews the API server sent: {0}")]
    Counts(store::ApiError),
}
