//! `leasehold fence` on a real API server: what the policies that it prints let through and refuse.
//!
//! Pods are objects without a kubelet, with real tokens bound to them: all that a fence knows of a pod comes from the
//! token. Each test has a namespace, a Lease and a fence of its own; the anchor is everybody's, and stays.

mod holders;
mod look;
mod parameters;
mod paused;
mod reach;

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::{process::Command, sync::OnceCell};

use crate::{
    Test,
    attacks::held,
    harness::{
        api::{Api, Reply},
        assets::Assets,
        audit::text,
        leases::{Edit, Leases, Verb},
        pods, until,
        world::World,
    },
};

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Test> {
    [
        holders::tests(),
        look::tests(),
        reach::tests(),
        paused::tests(),
        parameters::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every fence's Lease.
const LEASE: &str = "lock";
/// Pods of one Deployment, and what client-go makes of the names: `hostname_uuid`.
const A: &str = "payments-7d4b9c6f5-x2x9k";
const A_HOLDS: &str = "payments-7d4b9c6f5-x2x9k_2f1c8f0e-5b0a-4c1c-9d3e-8a7b6c5d4e3f";
const B: &str = "payments-7d4b9c6f5-q8w4m";
const B_HOLDS: &str = "payments-7d4b9c6f5-q8w4m_91c7a3d2-7e6f-4f5a-8b9c-0d1e2f3a4b5c";
/// Longer than any test takes on the slowest machine.
const VALID_SECONDS: i64 = 600;

/// What `leasehold fence` prints.
async fn printed(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(Assets::leasehold())
        .arg("fence")
        .args(arguments)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "leasehold fence failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Applies what `leasehold fence` prints.
async fn apply(world: &World, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let path = world.folder().join(format!("fence-{name}.yaml"));
    std::fs::write(&path, printed(arguments).await?)?;
    let path = path.to_str().context("the folder's name is not text")?;
    world.plane().await?.kubectl(&["apply", "-f", path]).await?;
    Ok(())
}

static ANCHOR: OnceCell<()> = OnceCell::const_new();

/// What every cluster with fences needs once.
async fn anchor(world: &World) -> anyhow::Result<()> {
    ANCHOR
        .get_or_try_init(|| apply(world, "anchor", &["--anchor"]))
        .await?;
    Ok(())
}

/// A namespace with a Lease, a fence and two pods.
struct Fenced {
    leases: Leases,
    admin: Api,
    a: Api,
    b: Api,
    a_token: String,
    b_token: String,
}

impl Fenced {
    /// The token that is bound to this pod.
    fn token(&self, pod: &str) -> &str {
        if pod == A { &self.a_token } else { &self.b_token }
    }

    /// The Lease is held by [`A`], and the fence, with these flags besides `--lease`, is applied. It may not be on
    /// yet.
    async fn new(world: &World, namespace: &str, flags: &[&str]) -> anyhow::Result<Self> {
        anchor(world).await?;
        let leases = world.leases(namespace).await?;
        let now = leases.api.now().await?;
        leases
            .create(LEASE, "elector", held(A_HOLDS, now, VALID_SECONDS, 0))
            .await?
            .accepted()?;
        pods::create_account(world, namespace).await?;
        let plane = world.plane().await?;
        let a_token = pods::token(world, namespace, A).await?;
        let b_token = pods::token(world, namespace, B).await?;
        let lease = format!("{namespace}/{LEASE}");
        let mut arguments = vec!["--lease", &lease];
        arguments.extend(flags);
        apply(world, namespace, &arguments).await?;
        Ok(Self {
            leases,
            admin: world.admin().await?,
            a: plane.client(&a_token)?,
            b: plane.client(&b_token)?,
            a_token,
            b_token,
        })
    }

    /// The same, in mode enforce for ConfigMaps, and on.
    async fn config_maps(world: &World, namespace: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let mut all = vec!["--resource", "v1/configmaps", "--mode", "enforce"];
        all.extend(flags);
        let fenced = Self::new(world, namespace, &all).await?;
        fenced.is_on().await?;
        Ok(fenced)
    }

    /// Waits until somebody who leads nothing is refused.
    async fn is_on(&self) -> anyhow::Result<()> {
        self.until_refused(&self.leases.api, "does not hold").await?;
        Ok(())
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.leases.namespace)
    }

    /// A dry run of a ConfigMap's creation: the same answer as many times as it is asked for.
    async fn probe(&self, api: &Api) -> anyhow::Result<Reply> {
        let path = format!("{}?dryRun=All", self.path());
        api.post(&path, &config_map("probe")).await
    }

    /// What the API server says to this writer, once it refuses in these words: it learns of policies and Leases by
    /// watches, in its own time.
    async fn until_refused(&self, api: &Api, words: &str) -> anyhow::Result<String> {
        until(&format!("a refusal that says {words:?}"), || async {
            let reply = self.probe(api).await?;
            Ok((reply.code >= 400 && reply.message().contains(words)).then(|| reply.message().to_owned()))
        })
        .await
    }

    async fn until_passes(&self, api: &Api) -> anyhow::Result<()> {
        until("the write to pass", || async {
            Ok((self.probe(api).await?.code < 300).then_some(()))
        })
        .await
    }

    /// Changes the Lease.
    async fn lease(&self, spec: Value) -> anyhow::Result<Value> {
        self.leases
            .edit(Verb::MergePatch, LEASE, &Edit::spec("elector", spec))
            .await?
            .accepted()
    }

    /// A takeover, as client-go writes it.
    async fn taken_over_by(&self, holder: &str) -> anyhow::Result<()> {
        let now = self.leases.api.now().await?;
        self.lease(held(holder, now, VALID_SECONDS, 1)).await?;
        Ok(())
    }
}

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "payments"}},
        "data": {"by": "nobody"},
    })
}

/// Every way to change an object that is there.
fn changes(name: &str, path: &str) -> [(&'static str, Method, String, &'static str, Value); 4] {
    let mut put = config_map(name);
    let mut applied = config_map(name);
    if let (Some(put), Some(applied)) = (put.as_object_mut(), applied.as_object_mut()) {
        put.insert("data".to_owned(), json!({"by": "put"}));
        applied.insert("data".to_owned(), json!({"by": "apply"}));
    }
    [
        (
            "PUT",
            Method::PUT,
            format!("{path}/{name}"),
            "application/json",
            put,
        ),
        (
            "merge patch",
            Method::PATCH,
            format!("{path}/{name}"),
            "application/merge-patch+json",
            json!({"data": {"by": "merge patch"}}),
        ),
        (
            "an empty patch",
            Method::PATCH,
            format!("{path}/{name}"),
            "application/merge-patch+json",
            json!({}),
        ),
        (
            "server-side apply",
            Method::PATCH,
            format!("{path}/{name}?fieldManager=applier&force=true"),
            "application/apply-patch+yaml",
            applied,
        ),
    ]
}

fn ensure_refused(reply: &Reply, what: &str, words: &str) -> anyhow::Result<()> {
    ensure!(
        reply.code == 403 && reply.message().contains(words),
        "{what}: expected a refusal that says {words:?}, got {} {}",
        reply.code,
        reply.message()
    );
    Ok(())
}

/// The objects that `leasehold fence` prints, for an API server that kubectl is not set up for.
async fn post_objects(api: &Api, arguments: &[&str]) -> anyhow::Result<()> {
    for object in objects(arguments).await? {
        api.post(&collection(&object), &object).await?.accepted()?;
    }
    Ok(())
}

async fn delete_objects(api: &Api, arguments: &[&str]) -> anyhow::Result<()> {
    for object in objects(arguments).await? {
        let path = format!("{}/{}", collection(&object), text(&object, "/metadata/name"));
        api.delete(&path).await?.accepted()?;
    }
    Ok(())
}

async fn objects(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--output", "json"]);
    let list: Value = serde_json::from_str(&printed(&arguments).await?)?;
    let items = list.pointer("/items").and_then(Value::as_array);
    items.cloned().context("not a List")
}

fn collection(object: &Value) -> String {
    let plural = if text(object, "/kind").ends_with("Binding") {
        "validatingadmissionpolicybindings"
    } else {
        "validatingadmissionpolicies"
    };
    format!("/apis/admissionregistration.k8s.io/v1/{plural}")
}
