//! The API server's audit log: who asked for what, and what came of it.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// Audit events, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct AuditEvents(pub(crate) Vec<Value>);

impl AuditEvents {
    /// Reads the log.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The last line may be half written.
        Ok(Self(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        ))
    }

    /// Writes to Leases of one namespace.
    pub(crate) fn lease_writes<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |event| {
            let is = |pointer: &str, wanted: &str| text(event, pointer) == wanted;
            is("/objectRef/resource", "leases")
                && is("/objectRef/namespace", namespace)
                && ["create", "update", "patch", "delete"].contains(&text(event, "/verb"))
        })
    }

    /// The writes among them that were answered with 403.
    pub(crate) fn refused_lease_writes(&self, namespace: &str) -> Vec<String> {
        self.lease_writes(namespace)
            .filter(|event| event.pointer("/responseStatus/code").and_then(Value::as_u64) == Some(403))
            .map(|event| text(event, "/responseStatus/message").to_owned())
            .collect()
    }
}

/// A string within a JSON document; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
