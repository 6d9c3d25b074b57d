//! What the server counts and measures.

mod labels;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

pub use labels::{HandshakeFailure, Listener, Phase, ReloadedFile, Shed};

use labels::OneLabel;

/// The HTTP codes that the server answers with; any other is counted as `other`.
const CODES: [(u16, &str); 10] = [
    (200, "200"),
    (400, "400"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
];
const OTHER_CODE: &str = "other";

/// The families of the server. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    connections: Family<OneLabel, Counter>,
    connections_open: Family<OneLabel, Gauge>,
    connections_refused: Family<OneLabel, Counter>,
    accept_errors: Family<OneLabel, Counter>,
    handshake_failures: Family<OneLabel, Counter>,
    deadlines_exceeded: Family<OneLabel, Counter>,
    requests: Family<OneLabel, Counter>,
    shed: Family<OneLabel, Counter>,
    reloads: Family<[(&'static str, &'static str); 2], Counter>,
    handshake_seconds: Histogram,
    body_seconds: Histogram,
    verdict_seconds: Histogram,
    start_time: Gauge,
    certificate_not_after: Gauge,
    /// Whether every readiness check passed, when it was last looked at: as `/metrics` is read.
    pub ready: Gauge,
    /// Reviews between their headers and their answer.
    pub reviews_in_flight: Gauge,
    /// Panics that were answered with HTTP 500.
    pub panics: Counter,
}

impl ServerMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        // From 4 us to 16 s by fours: a verdict takes microseconds, the API server gives up after 30 s at
        // most.
        let phase_seconds = Family::<OneLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
                4e-6, 4.0, 12,
            ))
        });
        let metrics = Self {
            connections: Family::default(),
            connections_open: Family::default(),
            connections_refused: Family::default(),
            accept_errors: Family::default(),
            handshake_failures: Family::default(),
            deadlines_exceeded: Family::default(),
            requests: Family::default(),
            shed: Family::default(),
            reloads: Family::default(),
            handshake_seconds: phase_seconds.get_or_create_owned(&Phase::Handshake.label()),
            body_seconds: phase_seconds.get_or_create_owned(&Phase::Body.label()),
            verdict_seconds: phase_seconds.get_or_create_owned(&Phase::Verdict.label()),
            start_time: Gauge::default(),
            certificate_not_after: Gauge::default(),
            ready: Gauge::default(),
            reviews_in_flight: Gauge::default(),
            panics: Counter::default(),
        };
        metrics.create_series();
        metrics.register_families(registry, phase_seconds);
        metrics
    }

    fn create_series(&self) {
        for listener in Listener::ALL.map(Listener::label) {
            drop(self.connections.get_or_create(&listener));
            drop(self.connections_open.get_or_create(&listener));
            drop(self.connections_refused.get_or_create(&listener));
            drop(self.accept_errors.get_or_create(&listener));
        }
        for failure in HandshakeFailure::ALL {
            drop(self.handshake_failures.get_or_create(&failure.label()));
        }
        for phase in Phase::ALL {
            drop(self.deadlines_exceeded.get_or_create(&phase.label()));
        }
        for code in CODES.iter().map(|&(_, name)| name).chain([OTHER_CODE]) {
            drop(self.requests.get_or_create(&[("code", code)]));
        }
        for reason in Shed::ALL {
            drop(self.shed.get_or_create(&reason.label()));
        }
        for file in ReloadedFile::ALL {
            for result in ["loaded", "refused"] {
                drop(
                    self.reloads
                        .get_or_create(&[("file", file.name()), ("result", result)]),
                );
            }
        }
    }

    fn register_families<C>(&self, registry: &mut Registry, phase_seconds: Family<OneLabel, Histogram, C>)
    where
        C: prometheus_client::metrics::family::MetricConstructor<Histogram> + Clone + Send + Sync + 'static,
    {
        registry.register("connections", "Connections accepted", self.connections.clone());
        registry.register(
            "connections_open",
            "Connections open now",
            self.connections_open.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed because as many as allowed were open: the oldest without a request, or else the new one",
            self.connections_refused.clone(),
        );
        registry.register(
            "accept_errors",
            "Failures to accept a connection; a lack of file descriptors shows here",
            self.accept_errors.clone(),
        );
        registry.register(
            "handshake_failures",
            "TLS handshakes that came to nothing; certificate_refused means that the caller's CA bundle does not fit the serving certificate",
            self.handshake_failures.clone(),
        );
        registry.register(
            "deadlines_exceeded",
            "Connections and requests that took longer than a phase may take",
            self.deadlines_exceeded.clone(),
        );
        registry.register(
            "requests",
            "Requests to the webhook port by HTTP code",
            self.requests.clone(),
        );
        registry.register(
            "reviews_shed",
            "Reviews turned away unread: too many at once, or too many bytes of them",
            self.shed.clone(),
        );
        registry.register(
            "reviews_in_flight",
            "Reviews between their headers and their answer",
            self.reviews_in_flight.clone(),
        );
        registry.register(
            "ready",
            "1 while every check of /readyz passes, so that this replica gets reviews",
            self.ready.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "Time spent in each phase",
            Unit::Seconds,
            phase_seconds,
        );
        registry.register(
            "panics",
            "Panics that were answered with HTTP 500",
            self.panics.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changed certificate files by what came of them: loaded, or refused while the last good ones stay",
            self.reloads.clone(),
        );
        registry.register_with_unit(
            "certificate_not_after_timestamp",
            "When the serving certificate expires, in seconds since 1970; 0 before one is loaded",
            Unit::Seconds,
            self.certificate_not_after.clone(),
        );
        registry.register_with_unit(
            "start_timestamp",
            "When this process began to serve, in seconds since 1970",
            Unit::Seconds,
            self.start_time.clone(),
        );
        registry.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
    }

    /// A connection was accepted; it counts as open until the guard is dropped.
    pub fn connection_opened(&self, listener: Listener) -> OpenGuard {
        self.connections.get_or_create(&listener.label()).inc();
        OpenGuard::new(self.connections_open.get_or_create_owned(&listener.label()))
    }

    /// A connection was closed at once, for want of room.
    pub fn connection_refused(&self, listener: Listener) {
        self.connections_refused.get_or_create(&listener.label()).inc();
    }

    /// `accept` failed.
    pub fn accept_failed(&self, listener: Listener) {
        self.accept_errors.get_or_create(&listener.label()).inc();
    }

    /// A handshake came to nothing.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.handshake_failures.get_or_create(&failure.label()).inc();
    }

    /// A phase took longer than it may.
    pub fn deadline_exceeded(&self, phase: Phase) {
        self.deadlines_exceeded.get_or_create(&phase.label()).inc();
    }

    /// A request to the webhook port was answered.
    pub fn answered(&self, code: http::StatusCode) {
        let known = CODES.iter().find(|&&(known, _)| known == code.as_u16());
        let code = known.map_or(OTHER_CODE, |&(_, name)| name);
        self.requests.get_or_create(&[("code", code)]).inc();
    }

    /// A review was turned away unread.
    pub fn shed(&self, reason: Shed) {
        self.shed.get_or_create(&reason.label()).inc();
    }

    /// A phase took this long. The wait for a first request is not measured: it is the client's leisure.
    pub fn took(&self, phase: Phase, duration: std::time::Duration) {
        let histogram = match phase {
            Phase::Body => &self.body_seconds,
            Phase::Handshake => &self.handshake_seconds,
            Phase::Headers => return,
            Phase::Verdict => &self.verdict_seconds,
        };
        histogram.observe(duration.as_secs_f64());
    }

    /// Files that had changed were put to use, or refused.
    pub fn reloaded(&self, file: ReloadedFile, good: bool) {
        let result = if good { "loaded" } else { "refused" };
        self.reloads
            .get_or_create(&[("file", file.name()), ("result", result)])
            .inc();
    }

    /// The serving certificate in use expires then.
    pub fn certificate_expires(&self, not_after: jiff::Timestamp) {
        self.certificate_not_after.set(not_after.as_second());
    }

    /// The process serves since then.
    pub fn started(&self, at: jiff::Timestamp) {
        self.start_time.set(at.as_second());
    }
}

/// Counts one up while it lives.
#[derive(Debug)]
pub struct OpenGuard(Gauge);

impl OpenGuard {
    /// Counts up.
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let mut registry = Registry::with_prefix("leasehold");
        ServerMetrics::register(&mut registry);
        let text = text(&registry);
        for series in [
            "leasehold_connections_total{listener=\"webhook\"} 0",
            "leasehold_connections_open{listener=\"admin\"} 0",
            "leasehold_connections_refused_total{listener=\"webhook\"} 0",
            "leasehold_accept_errors_total{listener=\"webhook\"} 0",
            "leasehold_handshake_failures_total{reason=\"certificate_refused\"} 0",
            "leasehold_deadlines_exceeded_total{phase=\"headers\"} 0",
            "leasehold_requests_total{code=\"200\"} 0",
            "leasehold_requests_total{code=\"other\"} 0",
            "leasehold_reviews_shed_total{reason=\"bytes\"} 0",
            "leasehold_reviews_in_flight 0",
            "leasehold_phase_duration_seconds_count{phase=\"verdict\"} 0",
            "leasehold_ready 0",
            "leasehold_panics_total 0",
            "leasehold_certificate_reloads_total{file=\"client_ca\",result=\"refused\"} 0",
            "leasehold_certificate_not_after_timestamp_seconds 0",
            "leasehold_start_timestamp_seconds 0",
            concat!(
                "leasehold_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn an_open_connection_counts_until_it_is_dropped_and_odd_codes_share_a_series() {
        let mut registry = Registry::with_prefix("leasehold");
        let metrics = ServerMetrics::register(&mut registry);
        let guard = metrics.connection_opened(Listener::Webhook);
        assert!(text(&registry).contains("leasehold_connections_open{listener=\"webhook\"} 1"));
        drop(guard);
        metrics.answered(http::StatusCode::IM_A_TEAPOT);
        metrics.answered(http::StatusCode::GONE);
        let text = text(&registry);
        assert!(
            text.contains("leasehold_connections_open{listener=\"webhook\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("leasehold_connections_total{listener=\"webhook\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("leasehold_requests_total{code=\"other\"} 2"),
            "{text}"
        );
        assert!(!text.contains("418"), "{text}");
    }
}
