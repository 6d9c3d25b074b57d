//! A client for the API server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls::crypto::CryptoProvider;

use super::policy_watch::WATCH_TIMEOUT;

/// Longest silence of the API server before a connection counts as dead.
///
/// kube sets no read timeout, so that a list over a connection whose other end vanished would wait for the kernel
/// (a quarter of an hour). The longest silence that is healthy is a watch without events, which the server ends
/// after [`WATCH_TIMEOUT`]; the margin is for a slow server.
const READ_TIMEOUT: Duration = WATCH_TIMEOUT.saturating_add(Duration::from_secs(15));

/// Makes a client from a kubeconfig's current context, or, without one, from the pod's ServiceAccount.
///
/// No byte is sent yet: an API server that is down is the caller's to retry. Must be called within a tokio runtime.
///
/// # Errors
/// When the kubeconfig, or the ServiceAccount's files, cannot be read or do not make sense.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    use_ring();
    let mut config = match kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    // The timeout then counts from the request, not from when the pooled connection went idle.
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ConnectError> {
    let wrong = |source| ConnectError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(wrong)
}

/// Names ring as the process's TLS provider, which kube's client takes; whoever came first wins.
fn use_ring() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster, with the same provider: no other is compiled in.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file given with `--kubeconfig` cannot be used.
    #[error("--kubeconfig {}: cannot be used; give a file whose current-context names a cluster and a user", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// No `--kubeconfig`, and the files and variables that every pod has are not there.
    #[error(
        "no --kubeconfig was given, and this is not a pod with a ServiceAccount: give --kubeconfig FILE, or run in a cluster with automountServiceAccountToken"
    )]
    InCluster(#[source] InClusterError),
    /// The configuration was read, but makes no client.
    #[error(
        "the Kubernetes client cannot be set up from its configuration: check its certificates, key and server address"
    )]
    Client(#[source] Box<kube::Error>),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named_with_its_flag() {
        let missing = connect(Some(Path::new("/nonexistent/kubeconfig")))
            .await
            .err()
            .unwrap();
        assert!(
            missing
                .to_string()
                .contains("--kubeconfig /nonexistent/kubeconfig"),
            "{missing}"
        );

        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n").unwrap();
        let dangling = connect(Some(file.path())).await.err().unwrap();
        assert!(dangling.to_string().contains("current-context"), "{dangling}");
    }

    #[tokio::test]
    async fn a_kubeconfig_makes_a_client_without_a_server_being_there() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            r"apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}}}]
users: [{{name: test, user: {{token: test}}}}]
"
        )
        .unwrap();
        let client = connect(Some(file.path())).await.unwrap();
        assert_eq!(client.default_namespace(), "default");
    }
}
