//! The lean matchCondition: which writes the API server sends to the guard at all.

use serde_json::Value;

use super::stamps;

/// Fields that a pure renewal leaves as they were.
pub(super) const UNMOVED: [&str; 6] = [
    "holderIdentity",
    "leaseTransitions",
    "leaseDurationSeconds",
    "acquireTime",
    "strategy",
    "preferredHolder",
];

/// Whether the guard is asked about this write; what the matchCondition of `manifests/base/webhook.yaml` says
/// in CEL.
pub fn is_sent(old: Option<&Value>, new: &Value) -> bool {
    let Some(old) = old else { return true };
    let (before, after) = (&old["spec"], &new["spec"]);
    let pure_renewal = before.is_object()
        && after.is_object()
        && before["renewTime"] != after["renewTime"]
        && UNMOVED.iter().all(|field| before[field] == after[field])
        && stamps::renew_time_is_owned(new);
    !pure_renewal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease() -> Value {
        json!({
            "metadata": {"managedFields": [{"fieldsV1": {"f:spec": {"f:renewTime": {}}}}]},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5, "renewTime": "r0", "leaseTransitions": 0},
        })
    }

    #[test]
    fn a_pure_renewal_stays_in_the_api_server() {
        let mut new = lease();
        new["spec"]["renewTime"] = "r1".into();
        assert!(!is_sent(Some(&lease()), &new));
    }

    #[test]
    fn everything_else_is_sent() {
        assert!(is_sent(None, &lease()), "a create");
        assert!(is_sent(Some(&lease()), &lease()), "renewTime not moved");
        let fields = [
            ("holderIdentity", json!("b")),
            ("leaseTransitions", json!(1)),
            ("acquireTime", json!("t")),
        ];
        let more = [
            ("leaseDurationSeconds", json!(1)),
            ("strategy", json!("s")),
            ("preferredHolder", json!("p")),
        ];
        for (field, value) in fields.into_iter().chain(more) {
            let mut new = lease();
            new["spec"]["renewTime"] = "r1".into();
            new["spec"][field] = value;
            assert!(is_sent(Some(&lease()), &new), "{field}");
        }
        let mut blind = lease();
        blind["spec"]["renewTime"] = "r1".into();
        blind["metadata"] = json!({});
        assert!(is_sent(Some(&lease()), &blind), "stamps gone");
    }
}
