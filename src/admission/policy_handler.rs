//! `/validate-policy`: reviews of the ConfigMap that holds the policy, so that `kubectl apply` of a bad one fails at once.
//!
//! **Invariant:** nobody is kept from repairing a policy. A deletion passes, and so does a write that leaves the
//! document as it was, and one that says why in the annotation `leasehold.dev/break-glass`: a policy for the version
//! that is about to be rolled out, say. No group is asked for: who may write the ConfigMap at all is decided by RBAC,
//! and a bad policy that is stored changes no verdict, because the last good one stays in force.

use std::{fmt, sync::Arc};

use serde::Deserialize;

use super::{
    decode::{DecodeError, needed, open, text},
    handler::Answer,
    response::Response,
    review::{Request, Text},
};
use crate::{
    cluster::{NamespacedName, POLICY_KEY},
    metrics::{Metrics, policy::PolicyReview},
    policy::{Policy, PolicyError},
};

/// A `ConfigMap`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a ConfigMap")]
struct ConfigMap<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object's metadata")]
struct Metadata<'a> {
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a map of strings")]
struct Annotations<'a> {
    /// [`crate::policy::BREAK_GLASS_ANNOTATION`].
    #[serde(borrow, rename = "leasehold.dev/break-glass")]
    break_glass: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a map of strings")]
struct Data<'a> {
    /// [`POLICY_KEY`].
    #[serde(borrow, rename = "policy.yaml")]
    document: Option<Text<'a>>,
}

impl ConfigMap<'_> {
    fn document(&self) -> Option<&str> {
        self.data.as_ref()?.document.as_ref().map(Text::as_str)
    }

    fn reason(&self) -> Option<&str> {
        let reason = self.metadata.annotations.as_ref()?.break_glass.as_ref()?;
        Some(reason.as_str().trim()).filter(|reason| !reason.is_empty())
    }
}

/// Why a ConfigMap does not do as the policy's.
#[derive(Debug)]
enum Problem {
    NoKey,
    Bad(PolicyError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => write!(f, "has no key {POLICY_KEY:?}: add it"),
            Self::Bad(error) => write!(f, "{POLICY_KEY}: {error}"),
        }
    }
}

/// What comes of a write to a ConfigMap.
#[derive(Debug)]
enum Verdict {
    /// A good policy, or nothing that changes the policy.
    Allow,
    /// A bad one, with a reason.
    Excused(Problem),
    /// A bad one.
    Deny(Problem),
    /// Another object than Leasehold's policy, which is none of its business.
    Foreign,
}

/// Judges writes to the ConfigMap that holds the policy.
#[derive(Clone, Debug)]
pub struct PolicyHandler {
    /// None where the policy comes from a file.
    config_map: Option<NamespacedName>,
    metrics: Arc<Metrics>,
}

impl PolicyHandler {
    /// A handler for that ConfigMap; None where the policy comes from a file, so that no ConfigMap matters.
    pub fn new(config_map: Option<NamespacedName>, metrics: Arc<Metrics>) -> Self {
        Self { config_map, metrics }
    }

    /// Judges one HTTP body: 200 with a verdict, or 400 for what is no review.
    pub fn handle(&self, body: &[u8]) -> Answer {
        let answer = open::<ConfigMap<'_>>(body).and_then(|request| self.answer(request));
        answer.unwrap_or_else(|error| {
            self.metrics.admission.record_unreadable();
            Answer::error(http::StatusCode::BAD_REQUEST, &error.to_string())
        })
    }

    fn answer(&self, mut request: Request<'_, ConfigMap<'_>>) -> Result<Answer, DecodeError> {
        let uid = std::mem::take(&mut request.uid).0;
        let dry_run = request.dry_run.unwrap_or(false);
        let user = text(request.user_info.take().and_then(|user| user.username));
        let object = format!(
            "ConfigMap {}/{}",
            request.namespace.as_ref().map_or("", Text::as_str),
            request.name.as_ref().map_or("", Text::as_str)
        );
        let verdict = self.judge(request)?;
        let metrics = &self.metrics.policy;
        let mut response = Response::allow(&uid);
        match verdict {
            Verdict::Allow => metrics.reviewed(PolicyReview::Allowed),
            Verdict::Foreign => {
                metrics.reviewed(PolicyReview::Foreign);
                response.warn(
                    "leasehold follows another policy; restrict the rules of its ValidatingWebhookConfiguration to its own ConfigMap",
                );
            }
            Verdict::Excused(problem) => {
                metrics.reviewed(PolicyReview::Excused);
                if !dry_run {
                    tracing::warn!(%user, %object, %problem, "a bad policy was let through by break-glass");
                }
                response
                    .warn("break-glass: Leasehold will not take this policy up, and keeps the last good one");
                response.warn(&problem.to_string());
                response.annotate("policy", format!("break-glass: {problem}"));
            }
            Verdict::Deny(problem) => {
                metrics.reviewed(PolicyReview::Denied);
                if !dry_run {
                    tracing::warn!(%user, %object, %problem, "a bad policy was refused before it was stored");
                }
                response = Response::deny(&uid, format!("{object}, {problem}"));
                response.annotate("policy", format!("denied: {problem}"));
            }
        }
        Ok(Answer::of(&response))
    }

    fn judge(&self, request: Request<'_, ConfigMap<'_>>) -> Result<Verdict, DecodeError> {
        let named = |name: &NamespacedName| {
            let is =
                |field: &Option<Text<'_>>, expected| field.as_ref().is_some_and(|it| it.as_str() == expected);
            is(&request.namespace, name.namespace()) && is(&request.name, name.name())
        };
        let resource = &request.resource;
        let is_config_map = (resource.group.as_str(), resource.resource.as_str()) == ("", "configmaps")
            && request
                .sub_resource
                .as_ref()
                .is_none_or(|it| it.as_str().is_empty());
        if !is_config_map || !self.config_map.as_ref().is_some_and(named) {
            return Ok(Verdict::Foreign);
        }
        let operation = text(request.operation);
        let (object, old) = match operation.as_ref() {
            "CREATE" => (needed(request.object, "object", "CREATE")?, None),
            "UPDATE" => (
                needed(request.object, "object", "UPDATE")?,
                Some(needed(request.old_object, "oldObject", "UPDATE")?),
            ),
            "DELETE" | "CONNECT" => return Ok(Verdict::Allow),
            _ => return Err(DecodeError::Operation(operation.into_owned())),
        };
        if old
            .as_ref()
            .is_some_and(|old| old.document() == object.document())
        {
            return Ok(Verdict::Allow);
        }
        let problem = match object.document().map(Policy::parse) {
            Some(Ok(_)) => return Ok(Verdict::Allow),
            Some(Err(error)) => Problem::Bad(error),
            None => Problem::NoKey,
        };
        // As for leases: the write that sets the reason gives it, not a later one that finds it there.
        let reason = object.reason();
        if reason.is_some() && reason != old.as_ref().and_then(ConfigMap::reason) {
            Ok(Verdict::Excused(problem))
        } else {
            Ok(Verdict::Deny(problem))
        }
    }
}

#[cfg(test)]
#[path = "policy_handler_tests.rs"]
mod tests;
