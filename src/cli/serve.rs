//! `leasehold serve`.

mod args;
mod bind;
mod certificate_args;
mod config;
mod in_use;
mod lasting;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;

use crate::{
    admission::{Handler, PolicyHandler},
    audit::AuditLog,
    cluster::{
        self,
        registration::{REGISTRATION_CHECK, Registration, watch_registration},
    },
    logging::{self, LogLevel},
    metrics::Metrics,
    server::{
        AdminServer, Readiness, Server, Shutdown,
        reload::{CERTIFICATE_CHECK, POLICY_CHECK, Reloader},
        shutdown::{self, Aborted},
        tls::{self, ClientCaFile},
    },
};

pub use args::ServeArgs;
use bind::bind;
use config::{CertificateSource, Config, PolicyLocation, WatchedRegistration};
use in_use::{CertificateInUse, Events, Keeper, PolicyInForce, first_policy};
use lasting::LastingLoops;

/// What the readiness check of the webhook's port is called.
const LISTENER_CHECK: &str = "listener";

/// Most threads that serve, on a machine with more cores: four do some hundred thousand verdicts a second,
/// and each has memory of its own.
const MAX_WORKERS: usize = 4;

/// Exit code when something in flight was cut off, or when it was not a signal that ended the process.
const FAILED: u8 = 1;

/// Longest wait at the end for the audit log's last lines: a write to a disk that works takes milliseconds,
/// and one that does not must not eat the grace period.
const AUDIT_LOG_CLOSE: Duration = Duration::from_secs(2);

/// Runs `leasehold serve`: until a signal, and then until what is in flight was answered.
///
/// # Errors
/// When a flag's value cannot be used: one line with the flag and what to do.
pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let (filter, format) = args.logging()?;
    let config = args.into_config()?;
    let level = logging::init(filter, format);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_WORKERS))
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let result = runtime.block_on(serve(config, level));
    // A look at files that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, level: LogLevel) -> anyhow::Result<ExitCode> {
    let metrics = Arc::new(Metrics::new());
    let readiness =
        Readiness::waiting_for([LISTENER_CHECK, CERTIFICATE_CHECK, POLICY_CHECK, shutdown::CHECK]);
    let (signal, signals) = shutdown::signals().context("signals cannot be listened to")?;
    let loops = LastingLoops::new(signal);
    let shutdown = Shutdown::new();

    // All files first, so that a mistake in one is told before anything is seen from outside.
    let client = match (&config.certificate, &config.policy, &config.registration) {
        (CertificateSource::Files(_), PolicyLocation::File(_), None) => None,
        _ => Some(cluster::connect(config.kubeconfig.as_deref()).await?),
    };
    let bundle_is_kept = matches!(config.certificate, CertificateSource::SelfManaged(_));
    let certificate = CertificateInUse::begin(config.certificate, client.clone(), &metrics, &readiness)?;
    let client_ca = config.client_ca.map(ClientCaFile::load).transpose()?;
    let tls = tls::server_config(
        Arc::clone(&certificate.resolver) as _,
        client_ca.as_ref().map(ClientCaFile::client_ca),
    )
    .context("TLS cannot be set up")?;
    let events = client
        .clone()
        .filter(|_| config.events)
        .map_or_else(Events::default, |client| Events::begin(client, &metrics));
    if let (Some(watched), Some(client)) = (config.registration, &client) {
        readiness.set(REGISTRATION_CHECK, Err("not looked at yet".to_owned()));
        let WatchedRegistration {
            name,
            expected,
            repair,
        } = watched;
        let registration = Registration {
            name,
            expected,
            resolver: Arc::clone(&certificate.resolver),
            bundle_is_kept,
            repair,
            shutdown: shutdown.clone(),
        };
        let watch = watch_registration(
            client.clone(),
            registration,
            metrics.registration.clone(),
            readiness.clone(),
            events.queue.clone(),
        );
        loops.spawn("the watch of the registration", watch);
    }
    let policy = PolicyInForce::begin(config.policy, client, &events.queue, &metrics, &readiness, &loops)?;
    let audit_log = match &config.audit_log {
        Some(target) => AuditLog::open(target, metrics.audit_log.clone())?,
        None => AuditLog::disabled(),
    };

    let webhook_port = bind(&config.webhook_address).await?;
    let admin_port = bind(&config.admin_address).await?;
    metrics.server.started(Timestamp::now());
    tracing::info!(
        webhook = %webhook_port.local_addr()?,
        admin = %admin_port.local_addr()?,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );

    let admin_shutdown = Shutdown::new();
    let admin = AdminServer::with_log_level(readiness.clone(), Arc::clone(&metrics), level);
    let admin = loops.spawn("the admin port", admin.run(admin_port, admin_shutdown.clone()));
    let PolicyInForce {
        active,
        config_map,
        file,
        loaded,
    } = policy;
    let CertificateInUse { files, keeper, .. } = certificate;
    let (served, keeper) = keeper.map_or((None, None), |(loop_, served)| {
        (Some(served), Some(Keeper::start(loop_, &loops)))
    });
    let reloader = Reloader {
        certificate: files,
        client_ca,
        policy: file,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
    };
    loops.spawn("the re-reading of files", reloader.run(config.reload_interval));

    readiness.set(shutdown::CHECK, Ok(()));
    let handler =
        Handler::new(active, Arc::clone(&metrics), audit_log.clone()).with_events(events.queue.clone());
    let policy_handler = PolicyHandler::new(config_map, Arc::clone(&metrics));
    let server = Server::new(
        move |body, now| handler.handle(body, now),
        tls,
        config.limits,
        metrics,
    )
    .reviewing_at("/validate-policy", move |body, _now| policy_handler.handle(body));
    let serving = async {
        // Until there is a policy no review can be judged, and without a certificate none can be sent. The port is
        // bound, so whoever comes early waits a moment.
        let first_certificate = async {
            if let Some(served) = served {
                served.first().await;
            }
        };
        tokio::select! {
            _ = futures::future::join(first_policy(loaded), first_certificate) => {}
            () = shutdown.draining() => return 0,
        }
        readiness.set(LISTENER_CHECK, Ok(()));
        server.run(webhook_port, shutdown.clone()).await
    };
    let ended = shutdown::conduct(signals, config.shutdown_delay, &shutdown, &readiness, serving).await;
    let a_loop_ended = loops.has_one_ended();
    // From here on they may.
    drop(loops);
    events.close().await;
    if let Some(keeper) = keeper {
        keeper.end().await;
    }
    let all_logged = tokio::task::spawn_blocking(move || audit_log.close(AUDIT_LOG_CLOSE)).await?;
    if ended.is_ok() {
        // To the end, so that a last look at it tells of the drain.
        admin_shutdown.drain();
        let _ = admin.await;
    }
    let code = tell_end(ended);
    if !all_logged {
        tracing::error!("stopped: the audit log could not be written to its end");
    }
    if all_logged && !a_loop_ended {
        Ok(code)
    } else {
        Ok(ExitCode::from(FAILED))
    }
}

fn tell_end(ended: Result<usize, Aborted>) -> ExitCode {
    match ended {
        Ok(0) => {
            tracing::info!("stopped: all that was in flight was answered");
            ExitCode::SUCCESS
        }
        Ok(connections) => {
            tracing::warn!(
                connections,
                "stopped: the grace period is over, connections were cut off"
            );
            ExitCode::from(FAILED)
        }
        Err(aborted) => {
            tracing::warn!("{aborted}");
            ExitCode::from(FAILED)
        }
    }
}
