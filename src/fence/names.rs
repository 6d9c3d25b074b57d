//! Names of Kubernetes objects, as they are given to `leasehold fence`.

use std::{fmt, str::FromStr};

/// The longest DNS label (RFC 1123; `k8s.io/apimachinery/pkg/util/validation`: `DNS1123LabelMaxLength`).
const LONGEST_LABEL: usize = 63;
/// The longest DNS subdomain (the same: `DNS1123SubdomainMaxLength`).
const LONGEST_SUBDOMAIN: usize = 253;

/// Why a name was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Not two names with a slash between them.
    #[error("{0:?} is not NAMESPACE/NAME, as in shop/payments")]
    NotNamespaced(String),
    /// No name of a namespace.
    #[error(
        "{0:?} is no namespace: at most {LONGEST_LABEL} of a-z, 0-9 and -, with a letter or digit at both ends"
    )]
    Namespace(String),
    /// No name of an object whose name is a DNS subdomain.
    #[error(
        "{0:?} is no object's name: at most {LONGEST_SUBDOMAIN} of a-z, 0-9, - and ., with a letter or digit at both ends \
         of each part"
    )]
    Subdomain(String),
    /// No name that any object can have.
    #[error(
        "{0:?} is no object's name: it is empty, over {LONGEST_SUBDOMAIN} characters, . or .., or holds / or %, which no \
         part of a URL's path does"
    )]
    PathSegment(String),
}

/// A namespace's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceName(String);

/// The name of an object that is named as DNS names a host: most are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubdomainName(String);

/// The name of any object: some, such as those of RBAC, may hold whatever fits into the path of a URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName(String);

/// A named object in a namespace, as `NAMESPACE/NAME`: the Lease, or a service account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The name within it.
    pub name: SubdomainName,
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LONGEST_LABEL
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is a DNS subdomain; its parts may be as long as they like
/// (`k8s.io/apimachinery/pkg/util/validation`: `IsDNS1123Subdomain`).
pub(super) fn is_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= LONGEST_SUBDOMAIN
        && text.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        })
}

impl FromStr for NamespaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Namespace(text.to_owned()))
        }
    }
}

impl FromStr for SubdomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_subdomain(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Subdomain(text.to_owned()))
        }
    }
}

impl FromStr for ObjectName {
    type Err = NameError;

    /// As the API server does (`k8s.io/apimachinery/pkg/api/validation/path`: `IsValidPathSegmentName`).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = text.is_empty()
            || text.chars().count() > LONGEST_SUBDOMAIN
            || matches!(text, "." | "..")
            || text.contains(['/', '%']);
        if bad {
            Err(NameError::PathSegment(text.to_owned()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl FromStr for NamespacedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| NameError::NotNamespaced(text.to_owned()))?;
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl NamespaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SubdomainName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ObjectName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SubdomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_what_the_api_server_takes() {
        let good = ["shop/payments", "a/b.c-d", "0/0"];
        assert!(good.iter().all(|name| name.parse::<NamespacedName>().is_ok()));
        let long = "a".repeat(64);
        for (text, expected) in [
            ("payments", "is not NAMESPACE/NAME"),
            ("/payments", "\"\" is no namespace"),
            ("Shop/payments", "\"Shop\" is no namespace"),
            ("shop.eu/payments", "\"shop.eu\" is no namespace"),
            ("shop/", "\"\" is no object's name"),
            ("shop/pay/ments", "\"pay/ments\" is no object's name"),
            ("shop/pay\"ments", "\"pay\\\"ments\" is no object's name"),
            ("shop/pay..ments", "is no object's name"),
            ("shop/-payments", "is no object's name"),
            (&format!("{long}/payments"), "is no namespace"),
        ] {
            let error = text.parse::<NamespacedName>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn some_objects_have_names_that_no_host_could_have() {
        for good in ["system:node\"s", "a b", "\u{e9}\\", "..."] {
            assert!(good.parse::<ObjectName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "50%"] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
    }
}
