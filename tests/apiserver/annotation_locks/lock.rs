//! One lock in an annotation, and how clients write it.

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::{
    api::{Api, Reply},
    leases::Verb,
};

pub(super) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The ways in which clients write the record; see `src/lease/annotation_lock.rs`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    ClientGo,
    Fabric8,
    Python,
}

impl Dialect {
    pub(super) const ALL: [Self; 3] = [Self::ClientGo, Self::Fabric8, Self::Python];

    pub(super) fn record(
        self,
        holder: &str,
        seconds: i64,
        [acquired, renewed]: [Timestamp; 2],
        transitions: u32,
    ) -> String {
        match self {
            Self::ClientGo => format!(
                r#"{{"holderIdentity":"{holder}","leaseDurationSeconds":{seconds},"acquireTime":"{acquired:.0}","renewTime":"{renewed:.0}","leaderTransitions":{transitions}}}"#
            ),
            Self::Fabric8 => format!(
                r#"{{"holderIdentity":"{holder}","leaseDuration":{seconds}.000000000,"acquireTime":"{acquired:.6}","renewTime":"{renewed:.6}","leaderTransitions":{transitions}}}"#
            ),
            Self::Python => {
                let local = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
                format!(
                    r#"{{"holderIdentity": "{holder}", "leaseDurationSeconds": "{seconds}", "acquireTime": "{}", "renewTime": "{}"}}"#,
                    local(acquired),
                    local(renewed)
                )
            }
        }
    }
}

/// One object that carries a lock.
pub(super) struct Lock<'a> {
    pub(super) api: &'a Api,
    pub(super) namespace: &'a str,
    pub(super) resource: &'static str,
    pub(super) kind: &'static str,
    pub(super) name: String,
}

impl Lock<'_> {
    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/{}", self.namespace, self.resource)
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    fn document(&self, metadata: Value) -> Value {
        let mut document = json!({"apiVersion": "v1", "kind": self.kind, "metadata": metadata});
        if let Some(metadata) = document.pointer_mut("/metadata") {
            metadata["name"] = self.name.clone().into();
        }
        document
    }

    pub(super) async fn create(&self, metadata: Value) -> anyhow::Result<Reply> {
        self.api
            .post(
                &format!("{}?fieldManager=elector", self.collection()),
                &self.document(metadata),
            )
            .await
    }

    pub(super) async fn create_held(&self, record: &str) -> anyhow::Result<()> {
        self.create(json!({"annotations": {LEADER: record}}))
            .await?
            .accepted()?;
        Ok(())
    }

    /// Writes the annotation, as the binary that all electors here are replicas of.
    pub(super) async fn write(&self, verb: Verb, record: &str) -> anyhow::Result<Reply> {
        let path = format!("{}?fieldManager=elector", self.path());
        let send = async |method, path: &str, kind, body: Value| {
            self.api
                .request(method, path, kind, body.to_string().into_bytes())
                .await
        };
        match verb {
            Verb::Put => {
                let mut object = self.api.get(&self.path()).await?.accepted()?;
                object["metadata"]["annotations"][LEADER] = record.into();
                send(Method::PUT, &path, "application/json", object).await
            }
            Verb::JsonPatch => {
                let key = LEADER.replace('/', "~1");
                let patch =
                    json!([{"op": "add", "path": format!("/metadata/annotations/{key}"), "value": record}]);
                send(Method::PATCH, &path, "application/json-patch+json", patch).await
            }
            Verb::MergePatch | Verb::StrategicPatch => {
                let kind = if verb == Verb::MergePatch {
                    "application/merge-patch+json"
                } else {
                    "application/strategic-merge-patch+json"
                };
                let patch = json!({"metadata": {"annotations": {LEADER: record}}});
                send(Method::PATCH, &path, kind, patch).await
            }
            Verb::Apply => {
                let document = self.document(json!({"annotations": {LEADER: record}}));
                let path = format!("{path}&force=true");
                send(Method::PATCH, &path, "application/apply-patch+yaml", document).await
            }
        }
    }

    /// Changes metadata and nothing else.
    pub(super) async fn merge_metadata(&self, metadata: Value) -> anyhow::Result<Reply> {
        let path = format!("{}?fieldManager=other", self.path());
        self.api.merge_patch(&path, &json!({"metadata": metadata})).await
    }
}
