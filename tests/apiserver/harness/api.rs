//! A raw client: every verb with which a Lease can be written, and the answer as it came.

use anyhow::{Context, ensure};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use kube::client::{Body, Client};
use serde_json::{Map, Value, json};

use super::POLL;

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

/// An answer of the API server.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
    /// The API server's clock, to the second.
    pub(crate) date: Timestamp,
}

impl Reply {
    /// The object, where the write was accepted.
    pub(crate) fn accepted(self) -> anyhow::Result<Value> {
        ensure!(
            self.code < 300,
            "expected to be accepted, got {} {}",
            self.code,
            self.message()
        );
        Ok(self.body)
    }

    /// `message` of the Status.
    pub(crate) fn message(&self) -> &str {
        self.body
            .pointer("/message")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `reason` of the Status.
    pub(crate) fn reason(&self) -> &str {
        self.body
            .pointer("/reason")
            .and_then(Value::as_str)
            .unwrap_or_default()
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

/// A client with one identity.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    /// A client for `url` that trusts `authority` (PEM) and carries a token.
    pub(crate) fn new(url: &str, authority: &str, token: &str) -> anyhow::Result<Self> {
        let mut config = kube::Config::new(url.parse()?);
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(authority.as_bytes())
            .map(|der: rustls_pki_types::CertificateDer<'static>| der.to_vec())
            .context("the authority's certificate is not PEM")?;
        config.root_cert = Some(vec![der]);
        config.auth_info.token = Some(token.to_owned().into());
        // A test wants to see the answer, not a better one later.
        config.default_retry = false;
        Ok(Self {
            client: Client::try_from(config)?,
        })
    }

    /// Any request; `body` is sent as it is.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Reply> {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body))?;
        let response = self
            .client
            .send(request)
            .await
            .with_context(|| format!("{method} {path}"))?;
        let (head, body) = response.into_parts();
        let bytes = body
            .collect()
            .await
            .with_context(|| format!("{method} {path}"))?
            .to_bytes();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let date = head
            .headers
            .get(header::DATE)
            .map(text)
            .context("the answer carries no Date")?;
        Ok(Reply {
            code: head.status.as_u16(),
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
            warnings: head.headers.get_all(header::WARNING).iter().map(text).collect(),
            date: jiff::fmt::rfc2822::parse(&date).context("Date")?.timestamp(),
        })
    }

    /// GET, as text or JSON.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.request(Method::GET, path, "application/json", Vec::new())
            .await
    }

    /// POST of a JSON document.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.request(
            Method::POST,
            path,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Reply> {
        self.request(Method::DELETE, path, "application/json", Vec::new())
            .await
    }

    /// JSON merge patch.
    pub(crate) async fn merge_patch(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.request(
            Method::PATCH,
            path,
            "application/merge-patch+json",
            body.to_string().into_bytes(),
        )
        .await
    }

    /// Creates a namespace with labels.
    pub(crate) async fn create_namespace(&self, name: &str, labels: Value) -> anyhow::Result<()> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.post("/api/v1/namespaces", &namespace).await?.accepted()?;
        Ok(())
    }

    /// The API server's clock, to the second.
    pub(crate) async fn now(&self) -> anyhow::Result<Timestamp> {
        Ok(self.get("/version").await?.date)
    }

    /// Waits until the API server's clock shows a later second than `stamp`, so that the next stamp differs.
    pub(crate) async fn after_second(&self, stamp: Timestamp) -> anyhow::Result<Timestamp> {
        super::until("the API server's next second", || async {
            let now = self.now().await?;
            Ok((now > stamp).then_some(now))
        })
        .await
    }

    /// Waits until `seconds` have passed on the API server's clock since `since`.
    pub(crate) async fn until_elapsed(&self, since: Timestamp, seconds: i64) -> anyhow::Result<Timestamp> {
        let target = since.checked_add(SignedDuration::from_secs(seconds))?;
        loop {
            let now = self.now().await?;
            if now >= target {
                return Ok(now);
            }
            tokio::time::sleep(POLL).await;
        }
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
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases?fieldManager={manager}",
            self.namespace
        );
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": self.namespace},
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
