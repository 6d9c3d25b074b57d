//! `leasehold serve`.

mod args;
mod certificate_args;
mod config;
mod lasting;

use std::{io, net::IpAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use kube::Client;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Handler, PolicyHandler},
    audit::AuditLog,
    cluster::{
        self, NamespacedName, PolicyStatus,
        certificates::{SelfManaged, Served},
        registration::{REGISTRATION_CHECK, Registration, watch_registration},
    },
    events::EventQueue,
    logging::{self, LogLevel},
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    server::{
        AdminServer, CertificateResolver, Readiness, Server, Shutdown,
        certificates::PolledCertificate,
        policy_file::PolledPolicy,
        reload::{CERTIFICATE_CHECK, POLICY_CHECK, Reloader},
        shutdown::{self, Aborted},
        tls::{self, ClientCaFile},
    },
};

pub use args::ServeArgs;
use config::{CertificateSource, Config, ListenAddress, PolicyLocation, WatchedRegistration};
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

/// Longest wait at the end for the API server to be told that this replica serves no certificate any more.
const CERTIFICATES_CLOSE: Duration = Duration::from_secs(2);

/// Longest wait at the end for the last Events.
const EVENTS_CLOSE: Duration = Duration::from_secs(2);

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

    let shutdown = Shutdown::new();
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

/// The certificate in use, and whoever keeps it so.
struct CertificateInUse {
    resolver: Arc<CertificateResolver>,
    /// To be followed, if it comes from files.
    files: Option<PolledCertificate>,
    /// To be run, if Leasehold keeps it by itself.
    keeper: Option<(SelfManaged, Served)>,
}

impl CertificateInUse {
    fn begin(
        source: CertificateSource,
        client: Option<Client>,
        metrics: &Arc<Metrics>,
        readiness: &Readiness,
    ) -> anyhow::Result<Self> {
        match source {
            CertificateSource::Files(files) => {
                let files = files.load()?;
                Ok(Self {
                    resolver: files.resolver(),
                    files: Some(files),
                    keeper: None,
                })
            }
            CertificateSource::SelfManaged(settings) => {
                let resolver = Arc::new(CertificateResolver::empty());
                let client = client.context("--tls-secret needs the API server")?;
                let keeper = SelfManaged::new(
                    client,
                    *settings,
                    Arc::clone(&resolver),
                    Arc::clone(metrics),
                    readiness.clone(),
                );
                Ok(Self {
                    resolver,
                    files: None,
                    keeper: Some(keeper),
                })
            }
        }
    }
}

/// The loop that keeps self-managed certificates, while it runs.
struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    fn start(keeper: SelfManaged, loops: &LastingLoops) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: loops.spawn("the upkeep of the certificates", keeper.run(stopped)),
        }
    }

    /// Once nothing is served any more.
    async fn end(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(CERTIFICATES_CLOSE, self.task).await;
    }
}

/// The policy in force, and whoever keeps it so.
struct PolicyInForce {
    active: ActivePolicy,
    /// Where the policy comes from, unless it is a file.
    config_map: Option<NamespacedName>,
    /// To be followed, if the policy comes from a file.
    file: Option<PolledPolicy>,
    /// How the policy stands, if it comes from a ConfigMap; a file's is loaded from the start.
    loaded: Option<watch::Receiver<PolicyStatus>>,
}

impl PolicyInForce {
    fn begin(
        location: PolicyLocation,
        client: Option<Client>,
        events: &EventQueue,
        metrics: &Metrics,
        readiness: &Readiness,
        loops: &LastingLoops,
    ) -> anyhow::Result<Self> {
        let name = match location {
            PolicyLocation::ConfigMap(name) => name,
            PolicyLocation::File(file) => {
                let file = PolledPolicy::load(file)?;
                return Ok(Self {
                    active: file.active(),
                    config_map: None,
                    file: Some(file),
                    loaded: None,
                });
            }
        };
        let client = client.context("--policy-configmap needs the API server")?;
        // Never judged by: no review is looked at before the first policy is loaded.
        let active = ActivePolicy::new(Policy::default());
        let (sender, status) = cluster::policy_status(&name);
        let watch = cluster::watch_policy(
            client,
            name.clone(),
            active.clone(),
            metrics.policy.clone(),
            sender,
            events.clone(),
        );
        loops.spawn("the watch of the policy", watch);
        tokio::spawn(tell_policy(status.clone(), readiness.clone()));
        Ok(Self {
            active,
            config_map: Some(name),
            file: None,
            loaded: Some(status),
        })
    }
}

/// The queue of what is to be told on objects, and its writer. By default there is neither.
#[derive(Default)]
struct Events {
    queue: EventQueue,
    writer: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Events {
    fn begin(client: Client, metrics: &Metrics) -> Self {
        let (queue, occurrences) = EventQueue::new(metrics.events.clone());
        let closing = CancellationToken::new();
        let writer = cluster::publish_events(client, occurrences, metrics.events.clone(), closing.clone());
        Self {
            queue,
            writer: Some((closing, tokio::spawn(writer))),
        }
    }

    /// Writes what is left, if that does not take long: an Event is worth no delay.
    async fn close(self) {
        if let Some((closing, writer)) = self.writer {
            closing.cancel();
            let _ = tokio::time::timeout(EVENTS_CLOSE, writer).await;
        }
    }
}

/// Keeps the readiness check in step with how the policy stands.
async fn tell_policy(mut status: watch::Receiver<PolicyStatus>, readiness: Readiness) {
    loop {
        let now = status.borrow_and_update().clone();
        match (now.is_loaded(), now.is_healthy()) {
            (false, _) => readiness.set(POLICY_CHECK, Err(now.to_string())),
            (true, true) => readiness.set(POLICY_CHECK, Ok(())),
            (true, false) => readiness.pass_with_detail(POLICY_CHECK, now.to_string()),
        }
        if status.changed().await.is_err() {
            // Should the watch end, so does the process.
            return;
        }
    }
}

async fn first_policy(status: Option<watch::Receiver<PolicyStatus>>) {
    if let Some(mut status) = status
        && status.wait_for(PolicyStatus::is_loaded).await.is_err()
    {
        // Should the watch end, so does the process.
        std::future::pending::<()>().await;
    }
}

async fn bind(address: &ListenAddress) -> anyhow::Result<TcpListener> {
    let ListenAddress {
        ip,
        ip_flag,
        port,
        port_flag,
    } = address;
    let result = match ip {
        Some(ip) => TcpListener::bind((*ip, *port)).await,
        None => bind_all(*port).await,
    };
    result.map_err(|error| {
        let ip = ip.map_or_else(|| "any address".to_owned(), |ip| ip.to_string());
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow::anyhow!("{port_flag} {port}: in use on {ip}; stop the process that listens there, or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                anyhow::anyhow!("{ip_flag} {ip}: not an address of this machine; give one that it has, or leave the flag out for all")
            }
            io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!("{port_flag} {port}: not permitted; choose a port from 1024 on, and let a Service map 443 to it")
            }
            _ => anyhow::anyhow!("{port_flag} {port}: cannot listen on {ip}: {error}; choose another {ip_flag} or {port_flag}"),
        }
    })
}

/// IPv6's "any" takes IPv4 as well on Linux; where a machine has no IPv6, IPv4's.
async fn bind_all(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((IpAddr::from([0; 16]), port)).await {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
            ) =>
        {
            TcpListener::bind((IpAddr::from([0; 4]), port)).await
        }
        bound => bound,
    }
}
