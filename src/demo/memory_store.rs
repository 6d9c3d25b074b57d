//! A lease store in this process that behaves like the Kubernetes API server where it matters to leader election:
//! resourceVersions and conflicts, managedFields stamps, and an admission webhook in front of the writes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::{
    clock::Clock,
    match_condition,
    review::{self, Outcome, Verb, Write},
    stamps,
    store::{AdmissionCounts, ApiError, LeaseKey, LeaseStore, Writer},
    webhook::Webhook,
};

/// The store. `W` is where reviews of writes to the guarded namespace go; failurePolicy is `Ignore`.
pub struct MemoryStore<W> {
    clock: Clock,
    guarded_namespace: String,
    webhook: W,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<LeaseKey, Value>,
    resource_version: u64,
    counts: AdmissionCounts,
}

impl<W: Webhook> MemoryStore<W> {
    /// An empty store that reads `clock` for its stamps.
    pub fn new(clock: Clock, guarded_namespace: &str, webhook: W) -> Self {
        Self {
            clock,
            guarded_namespace: guarded_namespace.to_owned(),
            webhook,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, key: &LeaseKey) -> Option<Value> {
        self.state().objects.get(key).cloned()
    }

    /// One attempt: stamps `new`, asks the guard, and stores it if nobody was faster. `Ok(None)`: somebody was.
    async fn attempt(
        &self,
        writer: &Writer,
        key: &LeaseKey,
        verb: Verb,
        old: Option<Value>,
        mut new: Value,
    ) -> Result<Option<Value>, ApiError> {
        self.complete(key, old.as_ref(), &mut new);
        validate(key, &new)?;
        stamps::stamp(old.as_ref(), &mut new, &writer.field_manager, self.clock.now());
        if let Some(same) = old.as_ref().filter(|old| **old == new) {
            return Ok(Some(same.clone()));
        }
        let guarded = key.namespace == self.guarded_namespace;
        if guarded && match_condition::is_sent(old.as_ref(), &new) {
            self.admit(Write {
                writer,
                key,
                verb,
                old: old.as_ref(),
                new: &new,
            })
            .await?;
        }
        let mut state = self.state();
        if state.objects.get(key).map(resource_version) != old.as_ref().map(resource_version) {
            return Ok(None);
        }
        state.resource_version += 1;
        new["metadata"]["resourceVersion"] = state.resource_version.to_string().into();
        state.objects.insert(key.clone(), new.clone());
        Ok(Some(new))
    }

    /// What the server writes into an object itself, whatever the client sent.
    fn complete(&self, key: &LeaseKey, old: Option<&Value>, new: &mut Value) {
        new["apiVersion"] = "coordination.k8s.io/v1".into();
        new["kind"] = "Lease".into();
        if !new["metadata"].is_object() {
            new["metadata"] = json!({});
        }
        new["metadata"]["name"] = key.name.clone().into();
        new["metadata"]["namespace"] = key.namespace.clone().into();
        match old {
            Some(old) => {
                for field in ["uid", "creationTimestamp", "resourceVersion"] {
                    new["metadata"][field] = old["metadata"][field].clone();
                }
            }
            None => {
                if let Some(metadata) = new["metadata"].as_object_mut() {
                    metadata.remove("resourceVersion");
                }
                new["metadata"]["uid"] = uid(0xa, self.state().objects.len() as u64).into();
                new["metadata"]["creationTimestamp"] = stamps::whole_seconds(self.clock.now()).into();
            }
        }
    }

    async fn admit(&self, write: Write<'_>) -> Result<(), ApiError> {
        let uid = {
            let mut state = self.state();
            state.counts.reviews += 1;
            uid(0xb, state.counts.reviews)
        };
        let body = review::review(&uid, write).to_string().into_bytes();
        let outcome = match self.webhook.call(body).await {
            Ok(answer) => review::outcome(&uid, &answer),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        match outcome {
            Outcome::Allowed => Ok(()),
            Outcome::Denied(error) => {
                self.state().counts.denials += 1;
                Err(error)
            }
            Outcome::Failed(reason) => {
                self.state().counts.failures += 1;
                tracing::warn!(%reason, "the guard gave no verdict; failurePolicy Ignore lets the write through");
                Ok(())
            }
        }
    }
}

impl<W: Webhook> LeaseStore for MemoryStore<W> {
    async fn get(&self, key: &LeaseKey) -> Result<Lease, ApiError> {
        to_lease(self.stored(key).ok_or_else(|| ApiError::not_found(key))?)
    }

    async fn create(&self, writer: &Writer, key: &LeaseKey, lease: &Lease) -> Result<Lease, ApiError> {
        // As on the API server, a create that loses the race was reviewed like the one that won.
        let created = self
            .attempt(writer, key, Verb::Create, None, to_value(lease)?)
            .await?;
        to_lease(created.ok_or_else(|| ApiError::already_exists(key))?)
    }

    async fn update(&self, writer: &Writer, key: &LeaseKey, lease: &Lease) -> Result<Lease, ApiError> {
        let new = to_value(lease)?;
        let old = self.stored(key);
        if let Some(old) = &old {
            match resource_version(&new) {
                "" => {
                    let detail =
                        "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
                    return Err(ApiError::invalid(key, detail));
                }
                sent if sent != resource_version(old) => return Err(ApiError::conflict(key)),
                _ => {}
            }
        }
        let updated = self.attempt(writer, key, Verb::Update, old, new).await?;
        to_lease(updated.ok_or_else(|| ApiError::conflict(key))?)
    }

    async fn patch(&self, writer: &Writer, key: &LeaseKey, patch: &Value) -> Result<Lease, ApiError> {
        loop {
            let old = self.stored(key).ok_or_else(|| ApiError::not_found(key))?;
            let mut new = old.clone();
            merge(&mut new, patch);
            if resource_version(&new) != resource_version(&old) {
                return Err(ApiError::conflict(key));
            }
            // Somebody was faster: the patch is applied, and reviewed, anew on what is stored now.
            if let Some(patched) = self.attempt(writer, key, Verb::Patch, Some(old), new).await? {
                return to_lease(patched);
            }
        }
    }

    async fn admission_counts(&self) -> Result<AdmissionCounts, ApiError> {
        Ok(self.state().counts)
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// What the API server checks about a Lease itself (`pkg/apis/coordination/validation`).
fn validate(key: &LeaseKey, lease: &Value) -> Result<(), ApiError> {
    let number = |field: &str| lease["spec"][field].as_i64();
    if let Some(seconds) = number("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let detail = format!("spec.leaseDurationSeconds: Invalid value: {seconds}: must be greater than 0");
        return Err(ApiError::invalid(key, &detail));
    }
    if let Some(count) = number("leaseTransitions").filter(|count| *count < 0) {
        let detail =
            format!("spec.leaseTransitions: Invalid value: {count}: must be greater than or equal to 0");
        return Err(ApiError::invalid(key, &detail));
    }
    Ok(())
}

fn resource_version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// A uid in the form of Kubernetes', from a `series` and a number in it.
fn uid(series: u8, number: u64) -> String {
    format!("00000000-0000-4000-8000-{series:02x}{number:010x}")
}

fn to_value(lease: &Lease) -> Result<Value, ApiError> {
    serde_json::to_value(lease).map_err(|error| ApiError::new(400, "BadRequest", error.to_string()))
}

fn to_lease(object: Value) -> Result<Lease, ApiError> {
    serde_json::from_value(object).map_err(|error| ApiError::new(500, "InternalError", error.to_string()))
}

#[cfg(test)]
#[path = "memory_store_tests.rs"]
mod tests;
