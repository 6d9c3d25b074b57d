//! The three objects, as the API server has them.
//!
//! Requests are made and answers read here rather than by kube's typed client, for two reasons: that one logs the body
//! of an answer that it cannot read, and this one may be a Secret; and the answer's `Date` is the clock by which
//! certificates are judged.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, coordination::v1::Lease};
use kube::{Client, client::Body};
use serde_json::json;

use super::{Settings, secret::StoredSecret};
use crate::cluster::NamespacedName;

/// Under this name the API server notes what is written here, and whose `caBundle` is.
const MANAGER: &str = "leasehold-certificates";

/// Longest wait for one answer: what is asked for is small, and whoever waits holds a Lease.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// The API server, for what certificates need of it.
#[derive(Clone)]
pub(super) struct Objects {
    client: Client,
    secret: NamespacedName,
    configuration: String,
    clock: Option<ServerClock>,
}

/// The API server's clock, as last read.
#[derive(Clone, Copy)]
struct ServerClock {
    date: Timestamp,
    read: Instant,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Somebody else was faster: look again.
    #[error("{what} was changed meanwhile")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// No answer came.
    #[error("the API server did not answer for {what}: {why}")]
    Unreachable {
        /// What was asked for.
        what: &'static str,
        /// Why, for people.
        why: String,
    },
    /// The answer was no.
    #[error("the API server refused {what} ({code}): {why}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The HTTP code.
        code: u16,
        /// Its words.
        why: String,
    },
    /// The answer makes no sense.
    #[error("the API server's answer for {what} cannot be read")]
    Unreadable {
        /// What was asked for.
        what: &'static str,
    },
}

/// What objects are called in messages.
const SECRET: &str = "the certificates' Secret";
const LEASE: &str = "the certificates' Lease";
const CONFIGURATION: &str = "the ValidatingWebhookConfiguration";

impl Objects {
    pub(super) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            secret: settings.secret.clone(),
            configuration: settings.configuration.clone(),
            clock: None,
        }
    }

    /// The time by the API server's clock, to the second; by our own where it was never heard.
    pub(super) fn now(&self) -> Timestamp {
        let heard = self.clock.and_then(|ServerClock { date, read }| {
            let since = SignedDuration::try_from(read.elapsed()).ok()?;
            date.checked_add(since).ok()
        });
        heard.unwrap_or_else(Timestamp::now)
    }

    pub(super) async fn secret(&mut self) -> Result<Option<StoredSecret>, ApiError> {
        let path = self.secret_path(true);
        let Some(body) = found(self.send(SECRET, Method::GET, &path, "", Vec::new()).await)? else {
            return Ok(None);
        };
        let secret = StoredSecret::from_json(&body);
        secret.map(Some).ok_or(ApiError::Unreadable { what: SECRET })
    }

    /// Creates or replaces, whichever `secret` is for: as it was read, or not at all.
    pub(super) async fn write_secret(&mut self, secret: &StoredSecret) -> Result<StoredSecret, ApiError> {
        let stored = secret.is_stored();
        let method = if stored { Method::PUT } else { Method::POST };
        let path = format!("{}?fieldManager={MANAGER}", self.secret_path(stored));
        let body = secret.to_json(self.secret.namespace(), self.secret.name());
        let body = self.send(SECRET, method, &path, JSON, body).await?;
        StoredSecret::from_json(&body).ok_or(ApiError::Unreadable { what: SECRET })
    }

    pub(super) async fn lease(&mut self) -> Result<Option<Lease>, ApiError> {
        let path = self.lease_path(true);
        let Some(body) = found(self.send(LEASE, Method::GET, &path, "", Vec::new()).await)? else {
            return Ok(None);
        };
        Ok(Some(read(LEASE, &body)?))
    }

    pub(super) async fn create_lease(&mut self, lease: &Lease) -> Result<Lease, ApiError> {
        let path = format!("{}?fieldManager={MANAGER}", self.lease_path(false));
        self.write_lease(Method::POST, &path, lease).await
    }

    /// A PUT with the resourceVersion that `lease` was read with.
    pub(super) async fn update_lease(&mut self, lease: &Lease) -> Result<Lease, ApiError> {
        let path = format!("{}?fieldManager={MANAGER}", self.lease_path(true));
        self.write_lease(Method::PUT, &path, lease).await
    }

    async fn write_lease(&mut self, method: Method, path: &str, lease: &Lease) -> Result<Lease, ApiError> {
        let mut lease = lease.clone();
        lease.metadata.namespace = Some(self.secret.namespace().to_owned());
        lease.metadata.name = Some(self.secret.name().to_owned());
        let body = serde_json::to_vec(&lease).map_err(|_| ApiError::Unreadable { what: LEASE })?;
        let body = self.send(LEASE, method, path, JSON, body).await?;
        read(LEASE, &body)
    }

    pub(super) async fn configuration(&mut self) -> Result<Option<ValidatingWebhookConfiguration>, ApiError> {
        let path = self.configuration_path();
        let asked = self.send(CONFIGURATION, Method::GET, &path, "", Vec::new()).await;
        let Some(body) = found(asked)? else {
            return Ok(None);
        };
        Ok(Some(read(CONFIGURATION, &body)?))
    }

    /// Applies `caBundle` of every webhook and nothing else, if the configuration still is as it was read.
    pub(super) async fn publish(
        &mut self,
        read: &ValidatingWebhookConfiguration,
        bundle: &str,
    ) -> Result<(), ApiError> {
        let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
        let webhooks: Vec<_> = read
            .webhooks
            .iter()
            .flatten()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let document = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            // With a resourceVersion an apply is refused when it is no longer that one
            // (`k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager/fieldmanager.go`).
            "metadata": {"name": self.configuration, "resourceVersion": read.metadata.resource_version},
            "webhooks": webhooks,
        });
        let path = format!("{}?fieldManager={MANAGER}&force=true", self.configuration_path());
        let body = document.to_string().into_bytes();
        self.send(
            CONFIGURATION,
            Method::PATCH,
            &path,
            "application/apply-patch+yaml",
            body,
        )
        .await?;
        Ok(())
    }

    fn secret_path(&self, named: bool) -> String {
        in_namespace("/api/v1", "secrets", &self.secret, named)
    }

    fn lease_path(&self, named: bool) -> String {
        in_namespace("/apis/coordination.k8s.io/v1", "leases", &self.secret, named)
    }

    fn configuration_path(&self) -> String {
        format!(
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{}",
            self.configuration
        )
    }

    async fn send(
        &mut self,
        what: &'static str,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, ApiError> {
        let unreachable = |why: String| ApiError::Unreachable { what, why };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, JSON);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| unreachable(error.to_string()))?;
        let asked = async {
            let response = self.client.send(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, kube::Error>((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
            Err(_) => {
                return Err(unreachable(format!(
                    "nothing came within {} s",
                    REQUEST_TIMEOUT.as_secs()
                )));
            }
            Ok(Err(error)) => return Err(unreachable(crate::cluster::in_one_line(&error))),
            Ok(Ok(answer)) => answer,
        };
        let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            self.clock = Some(ServerClock {
                date: date.timestamp(),
                read: Instant::now(),
            });
        }
        match head.status {
            status if status.is_success() => Ok(body.to_vec()),
            StatusCode::CONFLICT => Err(ApiError::Conflict { what }),
            status => Err(ApiError::Refused {
                what,
                code: status.as_u16(),
                // What it says of a Secret may quote the Secret.
                why: if what == SECRET {
                    "see the API server's audit log".to_owned()
                } else {
                    message(&body)
                },
            }),
        }
    }
}

const JSON: &str = "application/json";

fn in_namespace(group: &str, resource: &str, name: &NamespacedName, named: bool) -> String {
    let collection = format!("{group}/namespaces/{}/{resource}", name.namespace());
    if named {
        format!("{collection}/{}", name.name())
    } else {
        collection
    }
}

fn found(asked: Result<Vec<u8>, ApiError>) -> Result<Option<Vec<u8>>, ApiError> {
    match asked {
        Ok(body) => Ok(Some(body)),
        Err(ApiError::Refused { code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|_| ApiError::Unreadable { what })
}

/// `message` of a Status.
fn message(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = status
        .as_ref()
        .and_then(|status| status.pointer("/message")?.as_str());
    message.unwrap_or("without saying why").to_owned()
}
