//! Leases, and every verb with which one can be written.

use anyhow::Context;
use http::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, Reply};

/// The ways to change an object that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    MergePatch,
    JsonPatch,
    StrategicPatch,
    Apply,
}

impl Verb {
    pub(crate) const ALL: [Self; 5] = [
        Self::Put,
        Self::MergePatch,
        Self::JsonPatch,
        Self::StrategicPatch,
        Self::Apply,
    ];

    /// For the names of objects.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::MergePatch => "merge-patch",
            Self::JsonPatch => "json-patch",
            Self::StrategicPatch => "strategic-patch",
            Self::Apply => "apply",
        }
    }
}

/// One change to one Lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edit {
    /// The field manager.
    pub(crate) manager: String,
    /// Fields of the spec: a null removes.
    pub(crate) spec: Map<String, Value>,
    /// Labels: a null removes.
    pub(crate) labels: Map<String, Value>,
    /// Annotations: a null removes. Not by a JSON patch.
    pub(crate) annotations: Map<String, Value>,
    /// `metadata.managedFields` to send along; the stored ones are echoed by a PUT otherwise.
    pub(crate) managed_fields: Option<Value>,
    /// Whether to ask for a server-side dry run.
    pub(crate) dry_run: bool,
}

impl Edit {
    /// A change of the spec by this field manager.
    pub(crate) fn spec(manager: &str, spec: Value) -> Self {
        Self {
            manager: manager.to_owned(),
            spec: into_map(spec),
            ..Self::default()
        }
    }

    /// A change of labels by this field manager.
    pub(crate) fn labels(manager: &str, labels: Value) -> Self {
        Self {
            manager: manager.to_owned(),
            labels: into_map(labels),
            ..Self::default()
        }
    }

    /// The same, and with these managedFields.
    pub(crate) fn with_managed_fields(self, managed_fields: Value) -> Self {
        Self {
            managed_fields: Some(managed_fields),
            ..self
        }
    }

    /// The same, as a dry run.
    pub(crate) fn dry(self) -> Self {
        Self {
            dry_run: true,
            ..self
        }
    }
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The Leases of one namespace.
#[derive(Clone)]
pub(crate) struct Leases {
    pub(crate) api: Api,
    pub(crate) namespace: String,
}

impl Leases {
    /// The path of one Lease.
    pub(crate) fn path(&self, name: &str) -> String {
        format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{name}",
            self.namespace
        )
    }

    /// The Lease as it is stored.
    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Value> {
        self.api.get(&self.path(name)).await?.accepted()
    }

    /// POST of a new Lease.
    pub(crate) async fn create(&self, name: &str, manager: &str, spec: Value) -> anyhow::Result<Reply> {
        self.create_owned(name, manager, spec, None).await
    }

    /// The same, of a Lease with this entry in `metadata.ownerReferences`.
    pub(crate) async fn create_owned(
        &self,
        name: &str,
        manager: &str,
        spec: Value,
        owner: Option<Value>,
    ) -> anyhow::Result<Reply> {
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases?fieldManager={manager}",
            self.namespace
        );
        let owners: Vec<Value> = owner.into_iter().collect();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": self.namespace, "ownerReferences": owners},
            "spec": spec,
        });
        self.api.post(&path, &lease).await
    }

    /// Deletes.
    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<Reply> {
        self.api.delete(&self.path(name)).await
    }

    /// Changes a Lease by one of the verbs. A PUT reads first, and carries the resourceVersion it read.
    pub(crate) async fn edit(&self, verb: Verb, name: &str, edit: &Edit) -> anyhow::Result<Reply> {
        let mut path = format!("{}?fieldManager={}", self.path(name), edit.manager);
        if edit.dry_run {
            path.push_str("&dryRun=All");
        }
        match verb {
            Verb::Put => {
                let mut lease = self.get(name).await?;
                overlay(&mut lease, "spec", &edit.spec)?;
                if !edit.labels.is_empty() {
                    let metadata = lease.get_mut("metadata").context("no metadata")?;
                    overlay(metadata, "labels", &edit.labels)?;
                }
                if !edit.annotations.is_empty() {
                    let metadata = lease.get_mut("metadata").context("no metadata")?;
                    overlay(metadata, "annotations", &edit.annotations)?;
                }
                if let Some(managed_fields) = &edit.managed_fields {
                    *lease
                        .pointer_mut("/metadata/managedFields")
                        .context("no managedFields to replace")? = managed_fields.clone();
                }
                self.api
                    .request(
                        Method::PUT,
                        &path,
                        "application/json",
                        lease.to_string().into_bytes(),
                    )
                    .await
            }
            Verb::MergePatch | Verb::StrategicPatch => {
                let content_type = if verb == Verb::MergePatch {
                    "application/merge-patch+json"
                } else {
                    "application/strategic-merge-patch+json"
                };
                let body = edit.as_document().to_string();
                self.api
                    .request(Method::PATCH, &path, content_type, body.into_bytes())
                    .await
            }
            Verb::JsonPatch => {
                let mut operations = Vec::new();
                for (field, value) in &edit.spec {
                    operations.push(match value {
                        Value::Null => json!({"op": "remove", "path": format!("/spec/{field}")}),
                        value => json!({"op": "add", "path": format!("/spec/{field}"), "value": value}),
                    });
                }
                if !edit.labels.is_empty() {
                    operations.push(json!({"op": "add", "path": "/metadata/labels", "value": edit.labels}));
                }
                if let Some(managed_fields) = &edit.managed_fields {
                    operations.push(
                        json!({"op": "replace", "path": "/metadata/managedFields", "value": managed_fields}),
                    );
                }
                let body = Value::from(operations).to_string();
                self.api
                    .request(
                        Method::PATCH,
                        &path,
                        "application/json-patch+json",
                        body.into_bytes(),
                    )
                    .await
            }
            Verb::Apply => {
                path.push_str("&force=true");
                let mut document = edit.as_document();
                let head = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"});
                if let (Some(document), Value::Object(head)) = (document.as_object_mut(), head) {
                    document.extend(head);
                }
                let body = document.to_string();
                self.api
                    .request(
                        Method::PATCH,
                        &path,
                        "application/apply-patch+yaml",
                        body.into_bytes(),
                    )
                    .await
            }
        }
    }
}

impl Edit {
    /// As a merge patch, and all but the head of an applied document.
    fn as_document(&self) -> Value {
        let mut metadata = Map::new();
        if !self.labels.is_empty() {
            metadata.insert("labels".to_owned(), Value::Object(self.labels.clone()));
        }
        if !self.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), Value::Object(self.annotations.clone()));
        }
        if let Some(managed_fields) = &self.managed_fields {
            metadata.insert("managedFields".to_owned(), managed_fields.clone());
        }
        let mut document = Map::new();
        document.insert("metadata".to_owned(), Value::Object(metadata));
        if !self.spec.is_empty() {
            document.insert("spec".to_owned(), Value::Object(self.spec.clone()));
        }
        Value::Object(document)
    }
}

fn overlay(parent: &mut Value, field: &str, changes: &Map<String, Value>) -> anyhow::Result<()> {
    let parent = parent.as_object_mut().context("not an object")?;
    let target = parent.entry(field).or_insert_with(|| json!({}));
    let target = target
        .as_object_mut()
        .with_context(|| format!("{field} is not an object"))?;
    for (name, value) in changes {
        if value.is_null() {
            target.remove(name);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
    Ok(())
}
