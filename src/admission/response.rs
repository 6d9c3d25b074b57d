//! The answer half of an `AdmissionReview` (`admission.k8s.io/v1`).
//!
//! Without `patch` and `patchType`: the API server takes an answer to a validating webhook that carries them
//! for an error (`k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`), so they cannot be
//! said here.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

/// What the API server shows of one warning before it cuts it
/// (`k8s.io/apiserver/pkg/endpoints/filters/warning.go`: 256 runes once the total is over 4 KiB).
const WARNING_LENGTH: usize = 250;

/// Bytes of an answer that allows a takeover; one that denies, and says why, is longer.
const COMMON_LENGTH: usize = 512;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a Response<'a>,
}

/// `AdmissionResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Sorted, so that equal answers are equal bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, Cow<'static, str>>,
}

/// `metav1.Status`, as far as the API server reads it. A code under 400 would reach the user as 400 BadRequest
/// (`k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go`), so it is always stated.
#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

impl<'a> Response<'a> {
    pub(super) fn allow(uid: &'a str) -> Self {
        Self {
            uid,
            allowed: true,
            status: None,
            warnings: Vec::new(),
            audit_annotations: BTreeMap::new(),
        }
    }

    pub(super) fn deny(uid: &'a str, message: String) -> Self {
        let status = Status {
            code: 403,
            reason: "Forbidden",
            message,
        };
        Self {
            allowed: false,
            status: Some(status),
            ..Self::allow(uid)
        }
    }

    /// Adds a warning for the client. Cut where the API server might cut it, but visibly.
    pub(super) fn warn(&mut self, text: &str) {
        self.warnings.push(match text.char_indices().nth(WARNING_LENGTH) {
            None => text.to_owned(),
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        });
    }

    /// Adds an annotation to the API server's own audit event, which prefixes the webhook's name.
    pub(super) fn annotate(&mut self, key: &'static str, value: impl Into<Cow<'static, str>>) {
        self.audit_annotations.insert(key, value.into());
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(COMMON_LENGTH);
        serde_json::to_writer(
            &mut bytes,
            &Review {
                api_version: "admission.k8s.io/v1",
                kind: "AdmissionReview",
                response: self,
            },
        )?;
        Ok(bytes)
    }
}
