//! What the API server counts of its own work.

use crate::harness::samples::Samples;

/// Means of the API server's own metrics over a phase.
pub(super) struct Means {
    match_condition: Mean,
    webhook: Mean,
    policies: Mean,
}

/// How often, and how many seconds in all.
struct Mean {
    count: f64,
    seconds: f64,
}

impl Means {
    pub(super) fn between(webhook: &str, before: &Samples, after: &Samples) -> Self {
        let mean = |name: &str, labels: &[(&str, &str)]| {
            let moved = |suffix: &str| {
                let name = format!("{name}_{suffix}");
                after.sum(&name, labels) - before.sum(&name, labels)
            };
            Mean {
                count: moved("count"),
                seconds: moved("sum"),
            }
        };
        let webhook = [("name", webhook)];
        Self {
            match_condition: mean("apiserver_admission_match_condition_evaluation_seconds", &webhook),
            webhook: mean("apiserver_admission_webhook_admission_duration_seconds", &webhook),
            // The API server's metric by policy moves only where one denies or fails (observed), but the whole plugin's
            // moves always: with the other namespaces' writes, too, which no policy matches.
            policies: mean(
                "apiserver_admission_controller_admission_duration_seconds",
                &[("name", "ValidatingAdmissionPolicy"), ("operation", "UPDATE")],
            ),
        }
    }

    pub(super) fn of_leasehold(&self) -> String {
        format!(
            "match condition {}, webhook {}",
            self.match_condition, self.webhook
        )
    }

    pub(super) fn of_policy(&self) -> String {
        format!("policies {}, half of them in the other namespaces", self.policies)
    }
}

impl std::fmt::Display for Mean {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count == 0.0 {
            return formatter.write_str("never asked");
        }
        let microseconds = self.seconds / self.count * 1e6;
        write!(formatter, "{microseconds:.0} us a time, {} times", self.count)
    }
}
