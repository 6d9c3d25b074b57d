//! Everything that the tests share, each thing started when a test first needs it.

use std::{
    ffi::OsStr,
    future::Future,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::json;
use tokio::sync::OnceCell;

use super::{
    POLL,
    api::Api,
    assets::Assets,
    control_plane::ControlPlane,
    leases::Leases,
    network::Network,
    process::{kill_all, tail},
    recorder::{RECORDED_LABEL, Recorder},
    until,
};
use crate::guard::Guard;

/// One control plane, one Leasehold, one folder of logs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) assets: Assets,
    pub(crate) network: Network,
    folder: PathBuf,
    plane: Once<ControlPlane>,
    recorder: Once<Recorder>,
    guard: Once<Guard>,
}

/// Started once, or failed once: what did not start is not tried again by every other test.
#[derive(Debug)]
struct Once<T> {
    what: &'static str,
    cell: OnceCell<Option<T>>,
}

impl<T> Once<T> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            cell: OnceCell::new(),
        }
    }

    async fn get(&self, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<&T> {
        let start = async {
            start
                .await
                .map_err(|error| eprintln!("{} did not start: {error:#}", self.what))
                .ok()
        };
        let started = self.cell.get_or_init(|| start).await;
        started
            .as_ref()
            .with_context(|| format!("{} did not start: the reason is in the output above", self.what))
    }
}

impl World {
    /// Nothing is started yet.
    pub(crate) fn new(assets: Assets, network: Network) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("leasehold-tests-")
            .tempdir()?
            .keep();
        Ok(Self {
            assets,
            network,
            folder,
            plane: Once::new("the control plane"),
            recorder: Once::new("the recording webhook"),
            guard: Once::new("Leasehold"),
        })
    }

    /// Where logs, keys and data are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The control plane.
    pub(crate) async fn plane(&self) -> anyhow::Result<&ControlPlane> {
        self.plane
            .get(Box::pin(ControlPlane::start(&self.assets, &self.folder)))
            .await
    }

    /// Waits until the control plane has ended by itself, and says how.
    pub(crate) async fn control_plane_ended(&self) -> anyhow::Error {
        loop {
            if let Some(Some(plane)) = self.plane.cell.get()
                && let Err(error) = plane.ensure_running()
            {
                return error;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A client that may do everything.
    pub(crate) async fn admin(&self) -> anyhow::Result<Api> {
        self.plane().await?.admin()
    }

    /// Leasehold as the manifests deploy it, in mode enforce.
    pub(crate) async fn guard(&self) -> anyhow::Result<&Guard> {
        self.guard.get(Box::pin(Guard::deploy(self))).await
    }

    /// A namespace of a test's own, for a writer whom the rules hold.
    pub(crate) async fn leases(&self, namespace: &str) -> anyhow::Result<Leases> {
        self.leases_with_labels(namespace, json!({})).await
    }

    /// The same, in a namespace with labels.
    pub(crate) async fn leases_with_labels(
        &self,
        namespace: &str,
        labels: serde_json::Value,
    ) -> anyhow::Result<Leases> {
        self.admin().await?.create_namespace(namespace, labels).await?;
        Ok(Leases {
            api: self.plane().await?.writer()?,
            namespace: namespace.to_owned(),
        })
    }

    /// The same, and every write to a Lease there is recorded.
    pub(crate) async fn recorded_leases(&self, namespace: &str) -> anyhow::Result<(Leases, &Recorder)> {
        let recorder = self.recorder.get(Box::pin(self.start_recorder())).await?;
        let leases = self
            .leases_with_labels(namespace, json!({RECORDED_LABEL: "all"}))
            .await?;
        // The API server learns of a namespace and its labels by a watch, in its own time.
        until("the recording webhook to be called", || async {
            leases.create("probe", "probe", json!({})).await?.accepted()?;
            leases.delete("probe").await?.accepted()?;
            Ok((!recorder.of(namespace, "probe").is_empty()).then_some(()))
        })
        .await?;
        Ok((leases, recorder))
    }

    async fn start_recorder(&self) -> anyhow::Result<Recorder> {
        let plane = self.plane().await?;
        let leaf = plane
            .authority()
            .issue(&self.folder, "recorder", &["127.0.0.1"])?;
        let recorder = Recorder::start(&leaf).await?;
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        let ca_bundle = base64(plane.authority().pem());
        plane
            .admin()?
            .post(path, &recorder.registration(&ca_bundle))
            .await?
            .accepted()?;
        Ok(recorder)
    }

    /// Ends every process and removes the folder, unless something failed: then the ends of the logs are shown.
    pub(crate) fn clear_away(&self, failed: bool) -> anyhow::Result<()> {
        kill_all();
        if !failed {
            return std::fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()));
        }
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for log in logs {
            // Most of the electors have nothing to tell of a failure elsewhere.
            let name = log.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if !name.starts_with("elector-") {
                eprintln!("---- the end of {}", log.display());
                eprintln!("{}", tail(&log, 15));
            }
        }
        eprintln!(
            "---- all logs, those of the electors too, are kept in {}",
            self.folder.display()
        );
        Ok(())
    }
}

/// Standard base64, as `caBundle` holds it.
pub(crate) fn base64(text: &str) -> String {
    // k8s-openapi's ByteString serialises so.
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
