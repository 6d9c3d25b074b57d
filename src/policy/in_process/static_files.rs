//! The files from which an API server takes policies that nobody can change through its API (KEP-5793).

use std::path::Path;

use serde_json::json;

use super::{Export, ExportError, ExportOptions, Source};

/// The folder of the policies, beside the configuration. The API server reads every YAML file in it, and nothing else may
/// be there.
pub const POLICIES_FOLDER: &str = "policies";

/// The name of the file of the policies.
pub const POLICIES_FILE: &str = "leasehold.yaml";

/// The name of the API server's admission configuration.
pub const CONFIGURATION_FILE: &str = "admission.yaml";

/// The name of the lines for kubeadm.
pub const KUBEADM_FILE: &str = "kubeadm.yaml";

/// What an API server needs on its own disk to hold a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticFiles {
    /// The policies and bindings, for [`POLICIES_FOLDER`].
    pub policies: String,
    /// The admission configuration that names that folder, for `--admission-control-config-file`.
    pub configuration: String,
    /// The part of kubeadm's ClusterConfiguration that gives the API server both.
    pub kubeadm: String,
    /// What the policies hold of which rule, and what they leave out.
    pub export: Export,
}

impl StaticFiles {
    /// The files for a folder that has the path `host_folder` on the machine of the API server.
    ///
    /// # Errors
    /// As [`Export::of`].
    pub fn of(document: &str, advice: bool, host_folder: &Path) -> Result<Self, ExportError> {
        let source = Source::Files;
        let export = Export::of(document, ExportOptions { advice, source })?;
        Ok(Self {
            policies: export.to_yaml(),
            configuration: configuration(&host_folder.join(POLICIES_FOLDER)),
            kubeadm: kubeadm(host_folder),
            export,
        })
    }
}

fn configuration(policies: &Path) -> String {
    format!(
        "\
# For the API server's flag --admission-control-config-file. An API server has one such file: where yours has one, add
# the entry of plugins to it.
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ValidatingAdmissionPolicy
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ValidatingAdmissionPolicyConfiguration
      staticManifestsDir: {}
",
        json!(policies)
    )
}

fn kubeadm(host_folder: &Path) -> String {
    let (folder, file) = (json!(host_folder), json!(host_folder.join(CONFIGURATION_FILE)));
    format!(
        "\
# For the apiServer of kubeadm's ClusterConfiguration. In a cluster that runs: `kubeadm init phase control-plane apiserver
# --config FILE` on each node of the control plane, one after the other.
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  extraArgs:
    - name: admission-control-config-file
      value: {file}
    # Kubernetes 1.36 only: from 1.37 on it is on by default.
    # - name: feature-gates
    #   value: ManifestBasedAdmissionControlConfig=true
  extraVolumes:
    - name: leasehold-admission
      hostPath: {folder}
      mountPath: {folder}
      pathType: Directory
      readOnly: true
"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_configuration_names_the_folder_and_kubeadm_the_configuration() {
        let files = StaticFiles::of("", false, Path::new("/etc/kubernetes/lease's")).unwrap();
        let yaml = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
        let configuration = yaml(&files.configuration);
        assert_eq!(
            configuration["plugins"][0]["configuration"]["staticManifestsDir"],
            "/etc/kubernetes/lease's/policies"
        );
        let kubeadm = yaml(&files.kubeadm);
        assert_eq!(
            kubeadm["apiServer"]["extraArgs"][0]["value"],
            "/etc/kubernetes/lease's/admission.yaml"
        );
        assert_eq!(
            kubeadm["apiServer"]["extraVolumes"][0]["mountPath"],
            "/etc/kubernetes/lease's"
        );
        assert!(files.policies.contains("deny.leases.leasehold.dev.static.k8s.io"));
    }
}
