//! From the bytes of a review to the write that it asks about.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    review::{GroupVersionResource, ManagedFieldsEntry, Object, Request, Review, Spec, SpecFields, Text},
    unreadable::Unreadable,
};
use crate::lease::{
    LeaseName, ObjectKind, Owner, Record, Stamp, Stamps, State, Write, Writer,
    annotation_lock::{self, MalformedRecord},
};

/// One admission request, decoded.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The review's `uid`, to be echoed. Never empty.
    pub uid: Cow<'a, str>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What it is about.
    pub subject: Subject<'a>,
}

/// What an admission request is about.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A lease, in an object of its own or in an annotation.
    Lease(Box<Write<'a>>),
    /// An object that could carry a lease in an annotation and does not, before or after.
    NoLease(LeaseName<'a>),
    /// An annotation whose value cannot be read, before or after: whatever was written, there is nothing to judge
    /// by.
    Malformed(LeaseName<'a>, MalformedRecord),
    /// Something that Leasehold does not judge, as `group/version/resource`: the webhook is registered for too
    /// much.
    Other(String),
}

/// Why a review was refused: it could not be read, so there is no verdict and HTTP says 400.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing.
    #[error("the body is empty; expected an AdmissionReview as JSON")]
    Empty,
    /// Something that does not begin as a JSON object does: text, YAML, a list of reviews.
    #[error(
        "the body is not an AdmissionReview: it is no JSON object, which begins with {{; one review is expected, by itself"
    )]
    NotAnObject,
    /// Not JSON, cut short, or a field of the wrong type.
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] Unreadable),
    /// Not text.
    #[error("the body is not an AdmissionReview: it is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// Another kind of document, or another version.
    #[error(
        "expected kind AdmissionReview of apiVersion admission.k8s.io/v1, found kind {kind:?} of {api_version:?}"
    )]
    Kind {
        /// The document's `kind`; empty where it has none.
        kind: String,
        /// The document's `apiVersion`; empty where it has none.
        api_version: String,
    },
    /// No `request`, as in an answer.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// No `request.uid`, so that no answer could be matched with it.
    #[error("request.uid is missing or empty")]
    NoUid,
    /// An operation that does not exist.
    #[error("request.operation is {0:?}; expected CREATE, UPDATE, DELETE or CONNECT")]
    Operation(String),
    /// The operation needs an object that is not there.
    #[error("request.{field} is missing, and operation {operation} needs it")]
    NoObject {
        /// `object` or `oldObject`.
        field: &'static str,
        /// The operation.
        operation: &'static str,
    },
}

/// Decodes one review. `reviewed` is the caller's clock.
///
/// # Errors
/// [`DecodeError`] for a body that the API server would never send.
pub fn decode(body: &[u8], reviewed: Timestamp) -> Result<Attempt<'_>, DecodeError> {
    let mut request = open::<Object<'_>>(body)?;
    let uid = std::mem::take(&mut request.uid).0;
    let user = request.user_info.take().unwrap_or_default();
    let pod = user
        .extra
        .and_then(|extra| extra.pod_name)
        .and_then(|names| names.into_iter().next());
    let field_manager = request.options.take().and_then(|options| options.field_manager);
    let writer = Writer {
        user: text(user.username),
        groups: user.groups.into_iter().flatten().map(|group| group.0).collect(),
        pod: pod.map(|name| name.0),
        field_manager: field_manager
            .map(|manager| manager.0)
            .filter(|manager| !manager.is_empty()),
    };
    Ok(Attempt {
        uid,
        dry_run: request.dry_run.unwrap_or(false),
        subject: subject(request, writer, reviewed)?,
    })
}

/// Opens a review: its request, which has a uid.
pub(super) fn open<'a, O: Deserialize<'a>>(body: &'a [u8]) -> Result<Request<'a, O>, DecodeError> {
    // Looked at once, instead of string by string: a tenth of the time.
    let text_of_body = std::str::from_utf8(body)?;
    // A list would be taken for the review's fields in their order.
    match text_of_body.trim_ascii_start().bytes().next() {
        None => return Err(DecodeError::Empty),
        Some(b'{') => {}
        Some(_) => return Err(DecodeError::NotAnObject),
    }
    let review: Review<'_, O> =
        serde_json::from_str(text_of_body).map_err(|error| Unreadable::of::<O>(text_of_body, &error))?;
    let (kind, api_version) = (text(review.kind), text(review.api_version));
    if kind != "AdmissionReview" || api_version != "admission.k8s.io/v1" {
        return Err(DecodeError::Kind {
            kind: kind.into_owned(),
            api_version: api_version.into_owned(),
        });
    }
    let request = review.request.ok_or(DecodeError::NoRequest)?;
    if request.uid.as_str().is_empty() {
        return Err(DecodeError::NoUid);
    }
    Ok(request)
}

fn subject<'a>(
    request: Request<'a, Object<'a>>,
    writer: Writer<'a>,
    reviewed: Timestamp,
) -> Result<Subject<'a>, DecodeError> {
    let GroupVersionResource {
        group,
        version,
        resource,
    } = &request.resource;
    let subresource = request
        .sub_resource
        .as_ref()
        .map(Text::as_str)
        .unwrap_or_default();
    let kind = match (group.as_str(), resource.as_str(), subresource) {
        ("coordination.k8s.io", "leases", "") => Some(ObjectKind::Lease),
        ("", "configmaps", "") => Some(ObjectKind::ConfigMap),
        ("", "endpoints", "") => Some(ObjectKind::Endpoints),
        _ => None,
    };
    let operation = text(request.operation);
    let Some(kind) = kind.filter(|_| operation != "CONNECT") else {
        let separator = if subresource.is_empty() { "" } else { "/" };
        let (group, version, resource) = (group.as_str(), version.as_str(), resource.as_str());
        return Ok(Subject::Other(format!(
            "{group}/{version}/{resource}{separator}{subresource}"
        )));
    };
    let (object, old_object) = match operation.as_ref() {
        "CREATE" => (Some(needed(request.object, "object", "CREATE")?), None),
        "UPDATE" => (
            Some(needed(request.object, "object", "UPDATE")?),
            Some(needed(request.old_object, "oldObject", "UPDATE")?),
        ),
        "DELETE" => (None, Some(needed(request.old_object, "oldObject", "DELETE")?)),
        _ => return Err(DecodeError::Operation(operation.into_owned())),
    };
    let lease = lease_name(
        kind,
        request.namespace,
        request.name,
        object.as_ref().or(old_object.as_ref()),
    );
    let carries = |object: &Option<Object<'_>>| {
        let metadata = object.as_ref().and_then(|object| object.metadata.as_ref());
        metadata
            .and_then(|metadata| metadata.annotations.as_ref())
            .is_some_and(|annotations| annotations.leader.is_some())
    };
    if kind != ObjectKind::Lease && !carries(&object) && !carries(&old_object) {
        return Ok(Subject::NoLease(lease));
    }
    let state_of = |object: Option<_>| object.map(|object| state(kind, object)).transpose();
    let (old, new) = match (state_of(old_object), state_of(object)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(error), _) | (_, Err(error)) => return Ok(Subject::Malformed(lease, error)),
    };
    Ok(Subject::Lease(Box::new(Write::new(
        lease, writer, old, new, reviewed,
    ))))
}

pub(super) fn needed<O>(
    object: Option<O>,
    field: &'static str,
    operation: &'static str,
) -> Result<O, DecodeError> {
    object.ok_or(DecodeError::NoObject { field, operation })
}

pub(super) fn text(field: Option<Text<'_>>) -> Cow<'_, str> {
    field.map(|text| text.0).unwrap_or_default()
}

/// The lease's name by the request, or by the object where the request leaves it out (a create by
/// `generateName`).
fn lease_name<'a>(
    kind: ObjectKind,
    namespace: Option<Text<'a>>,
    name: Option<Text<'a>>,
    object: Option<&Object<'a>>,
) -> LeaseName<'a> {
    let metadata = object.and_then(|object| object.metadata.as_ref());
    let or_metadata = |field: Option<Text<'a>>, of_object: Option<&Text<'a>>| {
        let named = text(field);
        if named.is_empty() {
            of_object.map(|text| text.0.clone()).unwrap_or_default()
        } else {
            named
        }
    };
    LeaseName {
        kind,
        namespace: or_metadata(
            namespace,
            metadata.and_then(|metadata| metadata.namespace.as_ref()),
        ),
        name: or_metadata(name, metadata.and_then(|metadata| metadata.name.as_ref())),
    }
}

fn state(kind: ObjectKind, object: Object<'_>) -> Result<State<'_>, MalformedRecord> {
    let metadata = object.metadata.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    let (record, istio_key) = match (kind, annotations.leader) {
        (ObjectKind::Lease, _) => (
            record(object.spec.unwrap_or_default()),
            annotations.istio_holder_key.map(|key| key.0),
        ),
        (ObjectKind::ConfigMap | ObjectKind::Endpoints, None) => (Record::default(), None),
        (ObjectKind::ConfigMap | ObjectKind::Endpoints, Some(leader)) => {
            annotation_lock::parse_with_key(leader.as_str())?
        }
    };
    let mut state = State {
        record,
        stamps: Stamps {
            created: metadata.creation_timestamp.map(|created| created.0),
            ..Stamps::default()
        },
        tracked: metadata
            .managed_fields
            .iter()
            .flatten()
            .any(|entry| entry.fields_v1.is_some()),
        uid: metadata.uid.map(|uid| uid.0).filter(|uid| !uid.is_empty()),
        resource_version: metadata
            .resource_version
            .and_then(|version| version.0.parse().ok()),
        holder_manager: None,
        labels: metadata.labels.unwrap_or_default().0,
        break_glass: annotations.break_glass.map(|reason| reason.0),
        istio_key,
        owners: metadata
            .owner_references
            .into_iter()
            .flatten()
            .map(|owner| Owner {
                api_version: text(owner.api_version),
                kind: text(owner.kind),
            })
            .collect(),
        terminating: metadata.deletion_timestamp.is_some(),
    };
    for entry in metadata.managed_fields.into_iter().flatten() {
        note(kind, &mut state, entry);
    }
    Ok(state)
}

/// Adds what one entry of managedFields tells. An annotation is one field: who owns it owns all of the record.
fn note<'a>(kind: ObjectKind, state: &mut State<'a>, entry: ManagedFieldsEntry<'a>) {
    let Some(fields) = entry.fields_v1 else {
        return;
    };
    let owned = match kind {
        ObjectKind::Lease => fields.spec.unwrap_or_default(),
        ObjectKind::ConfigMap | ObjectKind::Endpoints => {
            let annotations = fields.metadata.and_then(|metadata| metadata.annotations);
            let leader = annotations.and_then(|annotations| annotations.leader);
            SpecFields {
                holder: leader,
                renew_time: leader,
                acquire_time: leader,
            }
        }
    };
    let stamp = entry.time.map_or(Stamp::Undated, |time| Stamp::At(time.0));
    let stamps = &mut state.stamps;
    if owned.holder.is_some() {
        let manager = entry.manager.map(|manager| manager.0);
        match stamps.holder {
            Stamp::Absent => state.holder_manager = manager,
            _ if state.holder_manager != manager => state.holder_manager = None,
            _ => {}
        }
    }
    for (owns, noted) in [
        (owned.holder.is_some(), &mut stamps.holder),
        (owned.renew_time.is_some(), &mut stamps.renew_time),
        (owned.acquire_time.is_some(), &mut stamps.acquire_time),
    ] {
        if owns {
            *noted = (*noted).max(stamp);
        }
    }
}

fn record(spec: Spec<'_>) -> Record<'_> {
    Record {
        holder: Record::holder_from(spec.holder_identity.map(|identity| identity.0)),
        duration_seconds: spec.lease_duration_seconds,
        acquire_time: spec.acquire_time.map(|time| time.0),
        renew_time: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions,
        strategy: spec
            .strategy
            .map(|strategy| strategy.0)
            .filter(|strategy| !strategy.is_empty()),
        preferred_holder: spec.preferred_holder.map(|holder| holder.0),
        zoneless: false,
    }
}
