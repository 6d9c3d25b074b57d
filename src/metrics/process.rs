//! The conventional series of any process, which standard dashboards and alerts know.
//!
//! Names and meanings: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use std::fmt;

use procfs::{WithCurrentSystemInfo, process::Process};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Registers the families `process_*`. Each scrape reads them from `/proc`; where the kernel does not tell one, as outside
/// Linux, the series is left out.
pub fn register(registry: &mut Registry) {
    registry
        .sub_registry_with_prefix("process")
        .register_collector(Box::new(ProcessCollector));
}

#[derive(Debug)]
struct ProcessCollector;

/// What the kernel tells of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    /// Of all threads, in user mode and in the kernel.
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    /// After 1970.
    start_seconds: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sample is a float: exact up to 2^53, eight petabytes"
)]
impl Reading {
    fn now() -> Self {
        let Ok(process) = Process::myself() else {
            return Self::default();
        };
        let mut reading = Self::default();
        if let Ok(stat) = process.stat() {
            let per_second = procfs::ticks_per_second() as f64;
            reading.cpu_seconds = Some((stat.utime + stat.stime) as f64 / per_second);
            reading.resident_bytes = Some(stat.rss_bytes().get() as f64);
            reading.virtual_bytes = Some(stat.vsize as f64);
            reading.threads = Some(stat.num_threads as f64);
            // Ticks after the machine's own start.
            reading.start_seconds = procfs::boot_time_secs()
                .ok()
                .map(|booted| booted as f64 + stat.starttime as f64 / per_second);
        }
        // The folder is read by way of a descriptor of its own.
        reading.open_fds = process
            .fd_count()
            .ok()
            .map(|count| count.saturating_sub(1) as f64);
        reading.max_fds = process
            .limits()
            .ok()
            .and_then(|limits| match limits.max_open_files.soft_limit {
                procfs::process::LimitValue::Value(most) => Some(most as f64),
                procfs::process::LimitValue::Unlimited => None,
            });
        reading
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reading = Reading::now();
        if let Some(seconds) = reading.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let family = encoder.encode_descriptor(
                "cpu",
                "Seconds of processor time that the process took, in user mode and in the kernel",
                Some(&Unit::Seconds),
                counter.metric_type(),
            )?;
            counter.encode(family)?;
        }
        let gauges = [
            (
                "resident_memory",
                "Bytes of memory that the process has in RAM, with pages of its executable file",
                Some(Unit::Bytes),
                reading.resident_bytes,
            ),
            (
                "virtual_memory",
                "Bytes of addresses that the process has",
                Some(Unit::Bytes),
                reading.virtual_bytes,
            ),
            (
                "start_time",
                "When the process started, in seconds after 1970",
                Some(Unit::Seconds),
                reading.start_seconds,
            ),
            ("open_fds", "Open file descriptors", None, reading.open_fds),
            (
                "max_fds",
                "Most file descriptors that may be open",
                None,
                reading.max_fds,
            ),
            ("threads", "Threads of the process", None, reading.threads),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let family = encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
                gauge.encode(family)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::SystemTime};

    use super::*;

    #[test]
    fn a_process_has_what_every_process_has() {
        let before = Reading::now();
        let [cpu, resident, of_addresses, threads, started, open, most] = [
            before.cpu_seconds,
            before.resident_bytes,
            before.virtual_bytes,
            before.threads,
            before.start_seconds,
            before.open_fds,
            before.max_fds,
        ]
        .map(Option::unwrap);
        assert!(cpu >= 0.0 && threads >= 1.0, "{before:?}");
        assert!(resident > 1e5 && of_addresses >= resident, "{before:?}");
        assert!(open >= 3.0 && most >= open, "{before:?}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        // A tick is a hundredth of a second, and the machine's start a whole one.
        assert!(started > 0.0 && started <= now.as_secs_f64() + 1.0, "{before:?}");
    }

    #[test]
    fn the_names_are_those_that_dashboards_ask_for() {
        let mut registry = Registry::default();
        register(&mut registry);
        let _file = File::open("/proc/self/stat").unwrap();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_start_time_seconds ",
            "process_open_fds ",
            "process_max_fds ",
            "process_threads ",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name}: {text}");
        }
    }
}
