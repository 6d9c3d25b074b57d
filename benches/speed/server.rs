//! (b) Reviews a second over TLS, against the same server with a closure that answers a constant.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use leasehold::{
    admission::{Answer, Handler},
    audit::{AuditLog, AuditLogTarget},
    demo::certificates::{Authority, Issued},
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    server::{Certificate, CertificateResolver, Limits, Server, Shutdown, tls},
};
use tokio::{net::TcpListener, runtime::Builder};

use crate::{
    client::{Callers, Load},
    pair,
    report::{Report, Row},
    verdict,
};

/// Each load with its rounds and the reviews of one: seconds in all.
const LOADS: [(Load, usize, u64); 3] = [
    (Load::STREAMS, 40, 4_000),
    (Load::SERVICE, 40, 4_000),
    (Load::ONE, 40, 1_000),
];

/// Measures and reports.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let issued = authority.issue("speed")?;
    let body = Bytes::from(verdict::review());
    let constant = verdict::handler().handle(&body, Timestamp::now());

    // As `leasehold serve` runs, apart from the client's one thread. Only one of the two servers has work at a time.
    let servers = Builder::new_multi_thread().enable_all().build()?;
    let metrics = Arc::new(Metrics::new());
    // With an audit log, as the manifests have it: each of these reviews is worth a line.
    let audit_log = AuditLog::open(
        &AuditLogTarget::File("/dev/null".into()),
        metrics.audit_log.clone(),
    )?;
    let handler = Handler::new(
        ActivePolicy::new(Policy::default()),
        Arc::clone(&metrics),
        audit_log,
    );
    let leasehold = servers.block_on(start(&issued, metrics, move |body, now| {
        handler.handle(body, now)
    }))?;
    let theirs = Arc::new(Metrics::new());
    let compared = servers.block_on(start(&issued, theirs, move |_body, _now| constant.clone()))?;

    let client = Builder::new_current_thread().enable_all().build()?;
    for (load, rounds, reviews) in LOADS {
        let connect = |address| client.block_on(Callers::connect(address, &authority.pem(), load));
        let (mut ours, mut theirs) = (connect(leasehold)?, connect(compared)?);
        let post = |callers: &mut Callers| client.block_on(callers.post(0..reviews, |_number| body.clone()));
        let pair = pair::measure(rounds, 1, || post(&mut ours), || post(&mut theirs))?;
        let rate = |took: std::time::Duration| reviews as f64 / took.as_secs_f64();
        report.row(Row {
            what: format!("(b) reviews a second over TLS, {load}"),
            measured: format!("{:.0}", rate(pair.ours())),
            against: format!(
                "{:.0} by a constant answer on the same stack",
                rate(pair.theirs())
            ),
            ratio: format!("{:.2}", pair.times_faster()),
            goal: "0.95",
            conditions: format!(
                "a {} B review; client and server share the machine; {rounds} rounds of {reviews}",
                body.len()
            ),
        });
    }
    servers.shutdown_background();
    Ok(())
}

async fn start(
    issued: &Issued,
    metrics: Arc<Metrics>,
    review: impl Fn(&[u8], Timestamp) -> Answer + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    let certificate = Certificate::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())?;
    let tls = tls::server_config(Arc::new(CertificateResolver::new(certificate)), None)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let server = Server::new(review, tls, Limits::webhook(), metrics);
    tokio::spawn(server.run(listener, Shutdown::new()));
    Ok(address)
}
