//! What the Deployment says that its components registered.
//!
//! A webhook that is gone leaves no trace in the registration, so the registration alone cannot tell a component that was
//! taken away on purpose from one that somebody deleted. Each component therefore says what it registers where it adds
//! its webhook, in one and the same overlay or release.

use std::{collections::BTreeMap, str::FromStr};

/// `NAME` or `NAME=NAMESPACE`: the webhook of a component, and a namespace that it takes in by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredWebhook {
    /// The webhook's name.
    pub name: String,
    /// A namespace that it takes in; none where it takes them in by label.
    pub namespace: Option<String>,
}

/// Any text is one; whether there is such a webhook, [`super::Expected::with_registered`] tells.
impl FromStr for RegisteredWebhook {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, namespace) = match text.split_once('=') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (text, None),
        };
        Ok(Self {
            name: name.to_owned(),
            namespace,
        })
    }
}

/// A webhook that no component of the manifests registers so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegisteredWebhookError {
    /// There is none of that name.
    #[error("{name}: no component registers it; give one of {known}")]
    Unknown {
        /// What was given.
        name: String,
        /// What could have been.
        known: String,
    },
    /// It does not choose among namespaces.
    #[error("{name}={namespace}: it takes in no namespaces by name; leave ={namespace} out")]
    ChoosesNone {
        /// The webhook.
        name: String,
        /// What was given.
        namespace: String,
    },
}

/// The webhooks of components that were said to be there, with the namespaces that each takes in by name; none where it
/// takes them in by label.
pub(super) type Said = BTreeMap<String, Vec<String>>;

/// Takes in what was said, where `known` are the webhooks that components add, and `choosing` those that may choose.
pub(super) fn said(
    registered: &[RegisteredWebhook],
    known: &[&str],
    choosing: &[&str],
) -> Result<Said, RegisteredWebhookError> {
    let mut said = Said::new();
    for RegisteredWebhook { name, namespace } in registered {
        if !known.contains(&name.as_str()) {
            return Err(RegisteredWebhookError::Unknown {
                name: name.clone(),
                known: known.join(", "),
            });
        }
        let namespaces = said.entry(name.clone()).or_default();
        let Some(namespace) = namespace else { continue };
        if !choosing.contains(&name.as_str()) {
            return Err(RegisteredWebhookError::ChoosesNone {
                name: name.clone(),
                namespace: namespace.clone(),
            });
        }
        namespaces.push(namespace.clone());
    }
    Ok(said)
}
