//! `NAMESPACE/NAME` of an object, as flags take it.

use std::{fmt, str::FromStr};

/// Longest namespace: an RFC 1123 label (`k8s.io/apimachinery/pkg/util/validation` `DNS1123LabelMaxLength`).
const NAMESPACE_MAX: usize = 63;

/// Longest name: an RFC 1123 subdomain (same file, `DNS1123SubdomainMaxLength`).
const NAME_MAX: usize = 253;

/// Which object of a kind: its namespace and its name, both as Kubernetes would accept them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedName {
    namespace: String,
    name: String,
}

impl NamespacedName {
    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for NamespacedName {
    type Err = NamespacedNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(NamespacedNameError::Shape);
        };
        if name.contains('/') {
            return Err(NamespacedNameError::Shape);
        }
        if !is_label(namespace) {
            return Err(NamespacedNameError::Namespace(namespace.to_owned()));
        }
        if name.len() > NAME_MAX || !name.split('.').all(is_subdomain_part) {
            return Err(NamespacedNameError::Name(name.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= NAMESPACE_MAX && is_subdomain_part(text)
}

/// One part of a subdomain; Kubernetes bounds the whole name, not the parts.
fn is_subdomain_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Why a text is not the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespacedNameError {
    /// Not two parts with one slash between them.
    #[error("expected NAMESPACE/NAME, for example leasehold-system/leasehold-policy")]
    Shape,
    /// The part before the slash cannot be a namespace.
    #[error(
        "\"{0}\" cannot be a namespace: use up to {NAMESPACE_MAX} lower case letters, digits and '-', with a letter or digit at both ends"
    )]
    Namespace(String),
    /// The part after the slash cannot be an object's name.
    #[error(
        "\"{0}\" cannot be an object's name: use up to {NAME_MAX} lower case letters, digits, '-' and '.', with a letter or digit at both ends of each part"
    )]
    Name(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_and_a_name_come_back_as_they_were() {
        let parsed: NamespacedName = "leasehold-system/policy.v1".parse().unwrap();
        assert_eq!(parsed.namespace(), "leasehold-system");
        assert_eq!(parsed.name(), "policy.v1");
        assert_eq!(parsed.to_string(), "leasehold-system/policy.v1");
    }

    #[test]
    fn what_kubernetes_would_not_accept_is_refused_by_the_part_that_is_wrong() {
        let long = "a".repeat(64);
        let cases = [
            ("", NamespacedNameError::Shape),
            ("policy", NamespacedNameError::Shape),
            ("a/b/c", NamespacedNameError::Shape),
            ("/b", NamespacedNameError::Namespace(String::new())),
            ("a/", NamespacedNameError::Name(String::new())),
            ("A/b", NamespacedNameError::Namespace("A".to_owned())),
            ("a.b/c", NamespacedNameError::Namespace("a.b".to_owned())),
            ("-a/b", NamespacedNameError::Namespace("-a".to_owned())),
            ("a/b-", NamespacedNameError::Name("b-".to_owned())),
            ("a/b..c", NamespacedNameError::Name("b..c".to_owned())),
            // A field selector is built from the name: nothing that could end or widen it may pass.
            (
                "a/b,metadata.name!=b",
                NamespacedNameError::Name("b,metadata.name!=b".to_owned()),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<NamespacedName>(), Err(expected), "{text:?}");
        }
        let namespace = format!("{long}/b");
        assert_eq!(
            namespace.parse::<NamespacedName>(),
            Err(NamespacedNameError::Namespace(long.clone()))
        );
        // A name's part may be longer than a namespace, up to the whole name's bound.
        assert!(format!("a/{long}").parse::<NamespacedName>().is_ok());
        let longest = "b".repeat(NAME_MAX);
        assert!(format!("a/{longest}").parse::<NamespacedName>().is_ok());
        assert!(format!("a/{longest}b").parse::<NamespacedName>().is_err());
    }
}
