//! A raw client: every verb with which a Lease can be written, and the answer as it came.

use anyhow::{Context, ensure};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use kube::client::{Body, Client};
use serde_json::{Value, json};

use super::POLL;

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

/// A client with one identity.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    /// Sent with every request.
    headers: Vec<(&'static str, String)>,
}

impl Api {
    /// A client for `url` that trusts `authority` (PEM) and carries a token.
    pub(crate) fn new(url: &str, authority: &str, token: &str) -> anyhow::Result<Self> {
        let mut config = Self::config(url, authority)?;
        config.auth_info.token = Some(token.to_owned().into());
        Ok(Self {
            client: Client::try_from(config)?,
            headers: Vec::new(),
        })
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// The same credentials, by which requests ask to be taken for another user's, whose token is bound to this pod.
    pub(crate) fn impersonating(&self, user: &str, pod: &str) -> Self {
        let extra = "Impersonate-Extra-authentication.kubernetes.io%2Fpod-name";
        Self {
            client: self.client.clone(),
            headers: vec![
                ("Impersonate-User", user.to_owned()),
                ("Impersonate-Group", "system:authenticated".to_owned()),
                (extra, pod.to_owned()),
            ],
        }
    }

    #[allow(dead_code, reason = "for tests/conformance")]
    /// A client without credentials, which passes requests and answers on as they are.
    pub(crate) fn anonymous(url: &str, authority: &str) -> anyhow::Result<Client> {
        Ok(Client::try_from(Self::config(url, authority)?)?)
    }

    fn config(url: &str, authority: &str) -> anyhow::Result<kube::Config> {
        let mut config = kube::Config::new(url.parse()?);
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(authority.as_bytes())
            .map(|der: rustls_pki_types::CertificateDer<'static>| der.to_vec())
            .context("the authority's certificate is not PEM")?;
        config.root_cert = Some(vec![der]);
        // A test wants to see the answer, not a better one later.
        config.default_retry = false;
        Ok(config)
    }

    /// Any request; `body` is sent as it is.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Reply> {
        // A pooled connection may be closed at the other end in the very moment in which it is used again. What only
        // reads is then asked once more.
        let mut may_ask_again = method == Method::GET;
        let response = loop {
            let mut request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header(header::CONTENT_TYPE, content_type)
                .header(header::ACCEPT, "application/json");
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            let request = request.body(Body::from(body.clone()))?;
            match self.client.send(request).await {
                Err(_) if may_ask_again => may_ask_again = false,
                response => break response.with_context(|| format!("{method} {path}"))?,
            }
        };
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
