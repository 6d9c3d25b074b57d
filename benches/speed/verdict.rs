//! (a) A verdict, from the bytes of a review to the bytes of the answer.

use std::{hint::black_box, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
};
use leasehold::{
    admission::Handler,
    audit::AuditLog,
    lease::{Change, LeaseName, Record, Stamp, Stamps, State, Write, Writer},
    metrics::Metrics,
    policy::{ActivePolicy, CATALOGUE, Policy},
};

use crate::{
    pair,
    report::{Report, Row},
};

/// A takeover after expiry that is allowed, as a real API server sent it, grown to 4 KB by what leases carry in
/// the field: labels of a package manager, and the entry of managedFields that owns them.
pub(crate) fn review() -> Vec<u8> {
    let captured = include_str!("../../tests/data/reviews/takeover-after-expiry.json");
    let mut review: serde_json::Value = serde_json::from_str(captured).unwrap();
    let names = [
        "name",
        "instance",
        "version",
        "component",
        "part-of",
        "managed-by",
    ];
    let labels: serde_json::Map<_, _> = names
        .iter()
        .map(|name| (format!("app.kubernetes.io/{name}"), "payments".into()))
        .collect();
    let owned: serde_json::Map<_, _> = labels
        .keys()
        .map(|label| (format!("f:{label}"), serde_json::json!({})))
        .collect();
    for object in ["object", "oldObject"] {
        let metadata = &mut review["request"][object]["metadata"];
        metadata["labels"] = labels.clone().into();
        metadata["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({
                "manager": "helm", "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
                "time": "2026-11-21T11:13:02Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": owned}},
            }));
    }
    review.to_string().into_bytes()
}

/// A handler with the default policy and no audit log.
pub(crate) fn handler() -> Handler {
    handler_with(Policy::default())
}

fn handler_with(policy: Policy) -> Handler {
    Handler::new(
        ActivePolicy::new(policy),
        Arc::new(Metrics::new()),
        AuditLog::disabled(),
    )
}

/// The same decision by the types that most webhooks in Rust use.
fn with_kube(policy: &Policy, body: &[u8], now: Timestamp) -> Vec<u8> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body).unwrap();
    let request: AdmissionRequest<DynamicObject> = review.try_into().unwrap();
    let typed =
        |object: Option<&DynamicObject>| object.map(|object| object.clone().try_parse::<Lease>().unwrap());
    let (old, new) = (
        typed(request.old_object.as_ref()).unwrap(),
        typed(request.object.as_ref()).unwrap(),
    );
    let (old, new) = (state(&old), state(&new));
    let write = Write {
        lease: LeaseName {
            kind: leasehold::lease::ObjectKind::Lease,
            namespace: request.namespace.as_deref().unwrap_or_default().into(),
            name: request.name.as_str().into(),
        },
        writer: Writer::default(),
        change: Change::between(&old.record, &new.record),
        old,
        new,
        reviewed: now,
    };
    let verdict = policy.decide(&write);
    let mut response = AdmissionResponse::from(&request);
    if let Some(message) = verdict.denial() {
        response = response.deny(message);
    }
    response
        .audit_annotations
        .insert("change".to_owned(), verdict.change.to_string());
    serde_json::to_vec(&response.into_review()).unwrap()
}

fn state(lease: &Lease) -> State<'_> {
    let spec = lease.spec.as_ref().unwrap();
    let stamp = |field: &str| {
        let entries = lease.metadata.managed_fields.iter().flatten();
        let owners = entries.filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0["f:spec"].get(field).is_some())
        });
        owners
            .filter_map(|entry| Some(Stamp::At(entry.time.as_ref()?.0)))
            .max()
            .unwrap_or(Stamp::Absent)
    };
    State {
        record: Record {
            holder: Record::holder_from(spec.holder_identity.as_deref().map(Into::into)),
            duration_seconds: spec.lease_duration_seconds,
            acquire_time: spec.acquire_time.as_ref().map(|time| time.0),
            renew_time: spec.renew_time.as_ref().map(|time| time.0),
            transitions: spec.lease_transitions,
            strategy: spec.strategy.as_deref().map(Into::into),
            preferred_holder: spec.preferred_holder.as_deref().map(Into::into),
            ..Record::default()
        },
        stamps: Stamps {
            holder: stamp("f:holderIdentity"),
            renew_time: stamp("f:renewTime"),
            acquire_time: stamp("f:acquireTime"),
            created: lease.metadata.creation_timestamp.as_ref().map(|time| time.0),
        },
        ..State::default()
    }
}

/// Measures and reports.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let (body, handler, policy, now) = (review(), handler(), Policy::default(), Timestamp::now());
    let pair = pair::measure(
        200,
        500,
        || {
            black_box(handler.handle(black_box(&body), now));
            Ok(())
        },
        || {
            black_box(with_kube(&policy, black_box(&body), now));
            Ok(())
        },
    )?;
    report.row(Row {
        what: "(a) verdict, bytes to bytes".to_owned(),
        measured: format!("{:.2} us", pair.ours().as_secs_f64() * 1e6),
        against: format!("{:.2} us with kube's types", pair.theirs().as_secs_f64() * 1e6),
        ratio: format!("{:.1} times faster", pair.times_faster()),
        goal: "6 us, 8 times faster",
        conditions: format!("a {} B review of a Lease update, allowed", body.len()),
    });
    all_rules(report, &body, &handler, now)
}

/// What the rules cost together, on a write that all of them look at and none fires on.
fn all_rules(report: &mut Report, body: &[u8], handler: &Handler, now: Timestamp) -> anyhow::Result<()> {
    let rules: String = CATALOGUE
        .iter()
        .map(|rule| format!("  {}: {{action: off}}\n", rule.name))
        .collect();
    let without_rules = handler_with(Policy::parse(&format!("rules:\n{rules}"))?);
    let pair = pair::measure(
        200,
        500,
        || {
            black_box(handler.handle(black_box(body), now));
            Ok(())
        },
        || {
            black_box(without_rules.handle(black_box(body), now));
            Ok(())
        },
    )?;
    report.row(Row {
        what: format!("(a) the same with all {} rules on", CATALOGUE.len()),
        measured: format!("{:.2} us", pair.ours().as_secs_f64() * 1e6),
        against: format!("{:.2} us with all off", pair.theirs().as_secs_f64() * 1e6),
        ratio: format!("{:.2} times as long", 1.0 / pair.times_faster()),
        goal: "nothing measurable",
        conditions: "the same review".to_owned(),
    });
    Ok(())
}
