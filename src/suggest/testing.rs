//! Records and logs for tests.

use serde_json::{Value, json};

use super::{Judge, Log, Suggestion};
use crate::policy::Policy;

/// A record of a denial by `transition-not-counted`, one review for each lease.
pub(crate) fn denial(namespace: &str, name: &str) -> Value {
    json!({
        "record": "violation", "time": "2026-11-20T09:30:00Z", "uid": format!("{namespace}/{name}"), "kind": "Lease",
        "namespace": namespace, "name": name, "change": "takeover", "purpose": "timed", "verdict": "allow", "mode": "audit",
        "rule": "transition-not-counted", "action": "enforce", "decision": "would be denied",
        "message": "\"b\" must set leaseTransitions of lease shop/payments to 4 (it was 3), and writes 9",
        "user": "system:serviceaccount:shop:payments", "oldTransitions": 3, "newTransitions": 9, "dryRun": false,
    })
}

/// A record of a denial by another rule.
pub(crate) fn denial_by(rule: &str, namespace: &str, name: &str) -> Value {
    let mut record = denial(namespace, name);
    record["rule"] = rule.into();
    record
}

/// A record of a duration that is refused.
pub(crate) fn duration(namespace: &str, name: &str, seconds: i64) -> Value {
    let mut record = denial_by("duration-out-of-bounds", namespace, name);
    let bound = if seconds < 5 {
        "under the minimum of 5s"
    } else {
        "over the maximum of 7d"
    };
    record["message"] =
        format!("\"b\" sets a duration of {seconds} s on lease {namespace}/{name}, {bound}").into();
    record["uid"] = format!("{namespace}/{name}/{seconds}").into();
    record
}

/// A log of these lines, judged by a policy.
pub(crate) fn log(policy: &str, lines: &[Value]) -> Log {
    let mut log = Log::new(Judge::new(&Policy::parse(policy).unwrap()), [], false);
    let text: Vec<_> = lines.iter().map(ToString::to_string).collect();
    log.read("audit.log", text.join("\n").as_bytes()).unwrap();
    log
}

/// What is suggested for these lines.
pub(crate) fn suggest(policy: &str, lines: &[Value]) -> Suggestion {
    Suggestion::of(&log(policy, lines), policy).unwrap()
}
