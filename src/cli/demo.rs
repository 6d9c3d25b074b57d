//! `leasehold demo`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use crate::demo::run::{self, Ending};

/// A macro, since `concat!` takes literals alone.
macro_rules! help {
    () => {
        "\
Examples:
  leasehold demo
  leasehold demo --assets \"$(tests/controlplane/build.sh 1.37.2)\"

Exit codes:
  0     the story was told to its end
  1     there were two leaders in spite of the guard
  2     it could not be told; standard error says why
  130   interrupted by Ctrl-C (128 and the signal's number: 143 for SIGTERM)"
    };
}

const LONG_HELP: &str = concat!(
    "\
Plays leader election twice, in about 20 seconds. First without a guard: programs with bugs that \
     real programs have had get past correct leaders. Then behind Leasehold's own server, on loopback and \
     with throw-away certificates, which refuses their early takeovers and lets correct ones through. It \
     touches nothing outside this machine and leaves nothing behind, also when it is interrupted.

On a terminal of at least 80 columns and 24 rows the timeline is drawn in place; elsewhere the story \
     is plain lines. NO_COLOR and CLICOLOR_FORCE are respected.

With --assets, or KUBEBUILDER_ASSETS in the environment, the same story is played on a real \
     kube-apiserver and etcd, which are started from that folder.

",
    help!()
);

/// Flags of `leasehold demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = help!(), after_long_help = LONG_HELP)]
pub struct DemoArgs {
    /// Folder with `etcd` and `kube-apiserver`, to play on a real API server
    #[arg(long, value_name = "DIR", env = "KUBEBUILDER_ASSETS")]
    assets: Option<PathBuf>,
}

/// Runs `leasehold demo`.
///
/// # Errors
/// What kept the story from being told, with its causes.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let DemoArgs { assets } = args;
    // A variable that is set to nothing is a variable that is not set.
    let assets = assets.filter(|folder| !folder.as_os_str().is_empty());
    let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    let ending = runtime.block_on(run::run(assets.as_deref()))?;
    Ok(match ending {
        Ending::Told | Ending::ReaderGone => ExitCode::SUCCESS,
        Ending::GuardFailed => ExitCode::FAILURE,
        Ending::Interrupted(signal) => {
            // On a terminal the cursor stands behind "^C". Nothing can be done if standard error is gone.
            let _ = writeln!(io::stderr(), "\nleasehold: interrupted; nothing is left behind");
            ExitCode::from(128 + signal)
        }
    })
}
