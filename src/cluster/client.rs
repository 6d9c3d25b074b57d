//! A client for the API server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    client::{AuthError, RustlsTlsError},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError},
};
use rustls::crypto::CryptoProvider;

use super::policy_watch::{WATCH_TIMEOUT, in_one_line};
use crate::server::pem;

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
    Client::try_from(config).map_err(|error| ConnectError::Client(client_mistake(&error)))
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ConnectError> {
    let wrong = |error| ConnectError::Kubeconfig {
        path: path.to_owned(),
        reason: kubeconfig_mistake(&error),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(wrong)
}

/// What is wrong with a kubeconfig, in one line. It holds keys and tokens: nothing is quoted but the names of contexts
/// and of files.
fn kubeconfig_mistake(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => format!("cannot be read: {error}"),
        KubeconfigError::Parse(error) => format!("is not a kubeconfig in YAML{}", place(error)),
        KubeconfigError::LoadCertificateAuthority(error) => data_mistake("certificate-authority", error),
        KubeconfigError::ParseCertificates(_) => {
            "its certificate-authority is not PEM with certificates".to_owned()
        }
        KubeconfigError::LoadClientCertificate(error) => data_mistake("client-certificate", error),
        KubeconfigError::LoadClientKey(error) => data_mistake("client-key", error),
        error => format!("cannot be used: {error}"),
    }
}

fn data_mistake(field: &str, error: &LoadDataError) -> String {
    match error {
        LoadDataError::DecodeBase64(_) => format!("its {field}-data is not base64"),
        LoadDataError::ReadFile(error, path) => {
            format!("its {field} {} cannot be read: {error}", path.display())
        }
        LoadDataError::NoBase64DataOrFile => format!("its {field} is missing"),
    }
}

/// Where in the YAML; the error itself shows the lines around.
fn place(error: &serde_saphyr::Error) -> String {
    error.location().map_or_else(String::new, |location| {
        format!(": line {}, column {}", location.line(), location.column())
    })
}

/// Why no client can be made, in one line that quotes neither a key nor what a credential plugin said.
fn client_mistake(error: &kube::Error) -> String {
    match error {
        kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(error)) => {
            format!("the client certificate or key {}", pem::mistake(error))
        }
        kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
            format!("the credential plugin {cmd} failed with {}", out.status)
        }
        kube::Error::Auth(AuthError::AuthExecParse(error)) => {
            format!("what the credential plugin said is no credential{}", place(error))
        }
        error => in_one_line(error),
    }
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
    #[error("--kubeconfig {}: {reason}; give a file whose current-context names a cluster and a user", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No `--kubeconfig`, and the files and variables that every pod has are not there.
    #[error(
        "no --kubeconfig was given, and this is not a pod with a ServiceAccount ({0}); give --kubeconfig FILE, or run in a cluster with automountServiceAccountToken"
    )]
    // Its text names its cause: as its source it would be told twice.
    InCluster(InClusterError),
    /// The configuration was read, but makes no client.
    #[error(
        "the Kubernetes client cannot be set up from its configuration: {0}; check its certificates, key and server address"
    )]
    Client(String),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::server::pem::tests::{ensure_nothing_is_quoted, mangled};

    /// Everything that is told of an error: its text, and that of each cause.
    fn told(error: ConnectError) -> String {
        format!("{:#}", anyhow::Error::from(error))
    }

    #[tokio::test]
    async fn a_cause_is_told_once() {
        let missing = told(
            connect(Some(Path::new("/nonexistent/config")))
                .await
                .err()
                .unwrap(),
        );
        assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
        let cause = InClusterError::ReadEnvironmentVariable(std::env::VarError::NotPresent);
        let elsewhere = told(ConnectError::InCluster(cause));
        assert_eq!(
            elsewhere.matches("environment variable not found").count(),
            1,
            "{elsewhere}"
        );
    }

    #[tokio::test]
    async fn a_key_in_a_kubeconfig_is_never_quoted() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let base64 = |text: &str| {
            let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
            serde_json::to_value(bytes).unwrap().as_str().unwrap().to_owned()
        };
        for mangled_key in mangled(&key) {
            let data = base64(&mangled_key);
            let good = format!(
                r"apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}}}]
users:
- name: test
  user:
    client-certificate-data: {}
    client-key-data: {data}
    token: secret-token
",
                base64(&certificate),
            );
            let torn = good.replace("    token:", "   token:");
            let not_base64 = good.replace(&data, &format!("'#{data}'"));
            for kubeconfig in [good, torn, not_base64] {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(kubeconfig.as_bytes()).unwrap();
                let told = told(connect(Some(file.path())).await.err().unwrap());
                assert_eq!(told.lines().count(), 1, "{told}");
                assert!(!told.contains("secret-token"), "{told}");
                ensure_nothing_is_quoted(&told, &key);
                ensure_nothing_is_quoted(&told, &data);
            }
        }
    }

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
