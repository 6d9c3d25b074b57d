//! What should be registered: the manifests themselves, so that there is nothing to keep in step with them.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration},
    apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement,
};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;

use super::registered::{RegisteredWebhook, RegisteredWebhookError, Said, said};

const BASE: &str = include_str!("../../../manifests/base/webhook.yaml");

/// The components that add a webhook, by their folders. A test holds the list to `manifests/components`.
const COMPONENTS: [(&str, &str); 4] = [
    (
        "annotation-locks",
        include_str!("../../../manifests/components/annotation-locks/kustomization.yaml"),
    ),
    (
        "fail-closed",
        include_str!("../../../manifests/components/fail-closed/kustomization.yaml"),
    ),
    (
        "kube-system",
        include_str!("../../../manifests/components/kube-system/kustomization.yaml"),
    ),
    (
        "watch-full",
        include_str!("../../../manifests/components/watch-full/kustomization.yaml"),
    ),
];

/// The namespace of the manifests, which a chart may install elsewhere.
const NAMESPACE: &str = "leasehold-system";

/// The label that holds a namespace's name (`k8s.io/api/core/v1` `LabelMetadataName`), set by the API server alone.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Components that take namespaces in by a label. The chart can name the namespaces instead.
const CHOOSING: [(&str, &str); 2] = [
    ("closed.leases.leasehold.dev", "leasehold.dev/failure"),
    ("renewals.leases.leasehold.dev", "leasehold.dev/watch"),
];

/// The manifests: the base, and the components that may be added to it.
#[derive(Clone, Debug)]
pub struct Expected {
    base: Value,
    components: Vec<Component>,
    /// What the Deployment says that its components registered.
    said: Said,
}

/// A component, as far as it changes the registration.
#[derive(Clone, Debug)]
struct Component {
    /// The name of the webhook that it adds, by which it is recognised.
    webhook: String,
    additions: Vec<Addition>,
    copies: Vec<Copy>,
}

/// An `add` of a JSON patch (RFC 6902) at the end of a list, which is all that components do.
#[derive(Clone, Debug, Deserialize)]
struct Addition {
    op: String,
    path: String,
    value: Value,
}

/// A field that one webhook takes from another (`replacements` of kustomize).
#[derive(Clone, Debug)]
struct Copy {
    from: String,
    to: String,
    field: String,
}

/// A manifest that is compiled in and makes no sense: a mistake in this repository, which its tests show.
#[derive(Debug, thiserror::Error)]
#[error("manifests/{file}: {problem}")]
pub struct ManifestError {
    file: String,
    problem: String,
}

#[derive(Debug, Deserialize)]
struct Kustomization {
    #[serde(default)]
    patches: Vec<Patch>,
    #[serde(default)]
    replacements: Vec<Replacement>,
}

#[derive(Debug, Deserialize)]
struct Patch {
    target: Option<PatchTarget>,
    patch: String,
}

#[derive(Debug, Deserialize)]
struct PatchTarget {
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Replacement {
    source: Source,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    field_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    field_paths: Vec<String>,
}

impl Expected {
    /// Reads the manifests that are compiled in, as installed in `namespace`, where these other namespaces are left
    /// out of everything.
    ///
    /// # Errors
    /// [`ManifestError`], which no build of this repository shows that passed its tests.
    pub fn from_manifests(namespace: &str, excluded: &[String]) -> Result<Self, ManifestError> {
        let wrong = |file: &str, problem: String| ManifestError {
            file: file.to_owned(),
            problem,
        };
        let mut base: Value =
            serde_saphyr::from_str(BASE).map_err(|error| wrong("base/webhook.yaml", error.to_string()))?;
        install(&mut base, namespace, excluded);
        let components = COMPONENTS.iter().map(|(name, text)| {
            let mut component = Component::parse(text)
                .map_err(|problem| wrong(&format!("components/{name}/kustomization.yaml"), problem))?;
            for addition in &mut component.additions {
                install(&mut addition.value, namespace, excluded);
            }
            Ok(component)
        });
        let this = Self {
            base,
            components: components.collect::<Result<_, _>>()?,
            said: Said::new(),
        };
        // Whatever can be asked for can be had.
        this.render(|_| true)
            .map_err(|problem| wrong("base/webhook.yaml", problem))?;
        Ok(this)
    }

    /// The same, where these webhooks of components are registered, whether they are found or not.
    ///
    /// # Errors
    /// [`RegisteredWebhookError`] where no component of the manifests registers such a webhook.
    pub fn with_registered(
        mut self,
        registered: &[RegisteredWebhook],
    ) -> Result<Self, RegisteredWebhookError> {
        let known: Vec<_> = self.components.iter().map(|it| it.webhook.as_str()).collect();
        self.said = said(registered, &known, &CHOOSING.map(|(name, _)| name))?;
        Ok(self)
    }

    /// The webhooks that components registered, as far as the Deployment says so.
    pub(super) fn said(&self) -> impl Iterator<Item = &str> {
        self.said.keys().map(String::as_str)
    }

    /// Whether a component adds this webhook.
    pub(super) fn is_of_component(&self, webhook: &str) -> bool {
        self.components.iter().any(|it| it.webhook == webhook)
    }

    /// What should stand where some of the components were added, which `is_there` tells by their webhooks' names.
    pub(super) fn webhooks(&self, is_there: impl Fn(&str) -> bool) -> Vec<ValidatingWebhook> {
        self.render(is_there)
            .ok()
            .and_then(|configuration| configuration.webhooks)
            .unwrap_or_default()
    }

    /// What should stand in place of `actual`, with the components that are there. Where one of those takes in
    /// namespaces by name and not by label, it is held to that choice, and so is the webhook that leaves them to it. The
    /// choice is what the Deployment says, or else what is found.
    pub(super) fn webhooks_for(&self, actual: &[ValidatingWebhook]) -> Vec<ValidatingWebhook> {
        let mut webhooks = self.webhooks(|name| actual.iter().any(|it| it.name == name));
        for (name, label) in CHOOSING {
            let found = || actual.iter().find(|it| it.name == name).and_then(chosen_by_name);
            let chosen = match self.said.get(name) {
                Some(namespaces) => Some(namespaces.clone()).filter(|it| !it.is_empty()),
                None => found(),
            };
            let Some(chosen) = chosen else { continue };
            for expression in webhooks.iter_mut().flat_map(expressions_mut) {
                if expression.key == label {
                    NAME_LABEL.clone_into(&mut expression.key);
                    expression.values = Some(chosen.clone());
                }
            }
        }
        webhooks
    }

    /// The name that the API server dials, and the certificate must be for
    /// (`k8s.io/apiserver/pkg/util/webhook/client.go`).
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        let service = self
            .webhooks(|_| false)
            .into_iter()
            .next()?
            .client_config
            .service?;
        ServerName::try_from(format!("{}.{}.svc", service.name, service.namespace)).ok()
    }

    /// The whole configuration, under the manifests' name, without a caBundle.
    pub(super) fn render(
        &self,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<ValidatingWebhookConfiguration, String> {
        let mut rendered = self.base.clone();
        for component in self.components.iter().filter(|it| is_there(&it.webhook)) {
            component.apply(&mut rendered)?;
        }
        serde_json::from_value(rendered).map_err(|error| error.to_string())
    }
}

impl Component {
    fn parse(text: &str) -> Result<Self, String> {
        let readable = |error: serde_saphyr::Error| error.to_string();
        let kustomization: Kustomization = serde_saphyr::from_str(text).map_err(readable)?;
        let mut additions: Vec<Addition> = Vec::new();
        // The others are not about the registration.
        let of_registration = |patch: &&Patch| match &patch.target {
            Some(target) => target.kind == "ValidatingWebhookConfiguration",
            None => true,
        };
        for patch in kustomization.patches.iter().filter(of_registration) {
            additions.extend(serde_saphyr::from_str::<Vec<Addition>>(&patch.patch).map_err(readable)?);
        }
        if let Some(other) = additions
            .iter()
            .find(|addition| addition.op != "add" || !addition.path.ends_with("/-"))
        {
            return Err(format!("{} of {} is not understood", other.op, other.path));
        }
        let webhook = additions
            .iter()
            .find(|addition| addition.path == "/webhooks/-")
            .and_then(|addition| addition.value.get("name")?.as_str())
            .ok_or("no webhook is added")?
            .to_owned();
        let mut copies = Vec::new();
        for Replacement { source, targets } in &kustomization.replacements {
            let (from, field) = webhook_field(&source.field_path)?;
            for path in targets.iter().flat_map(|target| &target.field_paths) {
                let (to, same) = webhook_field(path)?;
                if same != field {
                    return Err(format!("{path} is replaced by another field"));
                }
                copies.push(Copy {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    field: field.to_owned(),
                });
            }
        }
        Ok(Self {
            webhook,
            additions,
            copies,
        })
    }

    fn apply(&self, configuration: &mut Value) -> Result<(), String> {
        for Addition { path, value, .. } in &self.additions {
            let list = path
                .strip_suffix("/-")
                .and_then(|list| configuration.pointer_mut(list)?.as_array_mut())
                .ok_or_else(|| format!("there is no list at {path}"))?;
            list.push(value.clone());
        }
        for Copy { from, to, field } in &self.copies {
            let value = webhook_mut(configuration, from)
                .and_then(|webhook| webhook.get(field).cloned())
                .ok_or_else(|| format!("there is no {field} of {from}"))?;
            let target = webhook_mut(configuration, to).and_then(Value::as_object_mut);
            let target = target.ok_or_else(|| format!("there is no webhook {to}"))?;
            target.insert(field.clone(), value);
        }
        Ok(())
    }
}

/// Changes a value of the manifests into what it is for another namespace, and with more namespaces left out.
fn install(value: &mut Value, namespace: &str, excluded: &[String]) {
    match value {
        Value::String(text) if text == NAMESPACE => namespace.clone_into(text),
        Value::Array(items) => {
            let lists_the_excluded = items.iter().any(|item| item == "kube-node-lease");
            items
                .iter_mut()
                .for_each(|item| install(item, namespace, excluded));
            if lists_the_excluded {
                items.extend(excluded.iter().cloned().map(Value::String));
                // As the chart does: kube-system is among them already, and may be the namespace itself.
                let mut seen = BTreeSet::new();
                items.retain(|item| seen.insert(item.as_str().map(str::to_owned)));
            }
        }
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| install(field, namespace, excluded)),
        _ => {}
    }
}

fn expressions_mut(webhook: &mut ValidatingWebhook) -> &mut [LabelSelectorRequirement] {
    let selector = webhook.namespace_selector.as_mut();
    selector
        .and_then(|selector| selector.match_expressions.as_deref_mut())
        .unwrap_or_default()
}

/// The namespaces that a webhook takes in by their names.
fn chosen_by_name(webhook: &ValidatingWebhook) -> Option<Vec<String>> {
    let expressions = webhook.namespace_selector.as_ref()?.match_expressions.as_ref()?;
    let chosen = expressions
        .iter()
        .find(|it| it.key == NAME_LABEL && it.operator == "In")?;
    chosen.values.clone()
}

/// The parts of `webhooks.[name=NAME].FIELD`.
fn webhook_field(path: &str) -> Result<(&str, &str), String> {
    path.strip_prefix("webhooks.[name=")
        .and_then(|rest| rest.split_once("]."))
        .filter(|(_, field)| !field.contains('.'))
        .ok_or_else(|| format!("{path} is not understood"))
}

fn webhook_mut<'a>(configuration: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let webhooks = configuration.get_mut("webhooks")?.as_array_mut()?;
    webhooks
        .iter_mut()
        .find(|webhook| webhook.get("name").and_then(Value::as_str) == Some(name))
}

#[cfg(test)]
#[path = "expected_tests.rs"]
mod tests;
