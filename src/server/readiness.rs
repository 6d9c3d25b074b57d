//! Whether this replica should get reviews: a set of named checks.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    result: Result<(), String>,
    detail: Option<String>,
}

/// The checks with their latest outcome; clones share them.
#[derive(Clone, Debug)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<&'static str, Check>>>,
}

impl Readiness {
    /// These checks, all failed as not done yet: so a part that never reports keeps the whole from being
    /// ready.
    pub fn waiting_for(names: impl IntoIterator<Item = &'static str>) -> Self {
        let waiting = || Check {
            result: Err("not done yet".to_owned()),
            detail: None,
        };
        let checks = names.into_iter().map(|name| (name, waiting())).collect();
        Self {
            checks: Arc::new(Mutex::new(checks)),
        }
    }

    /// Records a check's outcome; the reason of a failure is for people.
    pub fn set(&self, name: &'static str, result: Result<(), String>) {
        self.record(name, Check { result, detail: None });
    }

    /// Records a check as passed, with something that people who look should know: a last good state that is
    /// kept.
    pub fn pass_with_detail(&self, name: &'static str, detail: String) {
        self.record(
            name,
            Check {
                result: Ok(()),
                detail: Some(detail),
            },
        );
    }

    fn record(&self, name: &'static str, check: Check) {
        // A map of plain values is whole after any panic.
        self.checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, check);
    }

    /// Whether every check passed, and a line for each, in the words of kube-apiserver's own
    /// `/readyz?verbose` (`k8s.io/apiserver/pkg/server/healthz/healthz.go`).
    pub fn report(&self) -> (bool, String) {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, check) in &*checks {
            let detail = check
                .detail
                .as_deref()
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = match &check.result {
                Ok(()) => writeln!(text, "[+]{name} ok{detail}"),
                Err(reason) => writeln!(text, "[-]{name} failed: {reason}"),
            };
        }
        let ready = checks.values().all(|check| check.result.is_ok());
        text.push_str(if ready {
            "readyz check passed\n"
        } else {
            "readyz check failed\n"
        });
        (ready, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_once_every_check_passed_and_each_is_told() {
        let readiness = Readiness::waiting_for(["policy", "listener"]);
        assert_eq!(
            readiness.report(),
            (
                false,
                "[-]listener failed: not done yet\n[-]policy failed: not done yet\nreadyz check failed\n"
                    .to_owned()
            )
        );
        readiness.set("listener", Ok(()));
        assert!(!readiness.report().0);
        readiness.pass_with_detail("policy", "version 8 was refused, version 7 stays".to_owned());
        assert_eq!(
            readiness.report(),
            (
                true,
                "[+]listener ok\n[+]policy ok: version 8 was refused, version 7 stays\nreadyz check passed\n"
                    .to_owned()
            )
        );
        readiness.set("listener", Err("closed".to_owned()));
        assert_eq!(
            readiness.report(),
            (
                false,
                "[-]listener failed: closed\n[+]policy ok: version 8 was refused, version 7 stays\nreadyz check failed\n"
                    .to_owned()
            )
        );
    }
}
