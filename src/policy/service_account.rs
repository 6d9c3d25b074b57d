//! Patterns of service accounts: what an override matches writers by.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::pattern::{AccountName, Namespace, Pattern};

/// What the API server calls a service account, before `<namespace>:<name>`
/// (`ServiceAccountUsernamePrefix` in `k8s.io/apiserver/pkg/authentication/serviceaccount`).
pub(super) const PREFIX: &str = "system:serviceaccount:";

/// A pattern of service accounts: `<namespace>/<name>`, each a pattern by itself, so that no `*` reaches over the `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: Pattern<Namespace>,
    name: Pattern<AccountName>,
}

impl ServiceAccount {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says why the pattern could match no service account, and how to write one.
    pub fn new(text: &str) -> Result<Self, String> {
        let (namespace, name) = text
            .split_once('/')
            .filter(|_| !text.starts_with(PREFIX))
            .ok_or_else(|| {
                format!(
                    "{text:?} names no service account; write NAMESPACE/NAME, as in longhorn-system/longhorn-service-account"
                )
            })?;
        let part = |error: &dyn fmt::Display| format!("service account {text:?}: {error}");
        Ok(Self {
            namespace: Pattern::new(namespace).map_err(|error| part(&error))?,
            name: Pattern::new(name).map_err(|error| part(&error))?,
        })
    }

    /// The pattern of its namespace.
    pub fn namespace(&self) -> &Pattern<Namespace> {
        &self.namespace
    }

    /// The pattern of its name.
    pub fn name(&self) -> &Pattern<AccountName> {
        &self.name
    }

    /// Whether a user is such a service account, by the name that the API server gives the user
    /// (`userInfo.username`).
    pub fn matches(&self, user: &str) -> bool {
        user.strip_prefix(PREFIX)
            .and_then(|account| account.split_once(':'))
            .is_some_and(|(namespace, name)| self.namespace.matches(namespace) && self.name.matches(name))
    }
}

/// The name of the user that the service account `name` of a namespace is.
pub fn user(namespace: &str, name: &str) -> String {
    format!("{PREFIX}{namespace}:{name}")
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ServiceAccount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAccount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for ServiceAccount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ServiceAccount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[^/:]+/[^/:]+$",
            "description": "A service account as NAMESPACE/NAME: in each half, * stands for any characters.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_reach_over_the_slash_and_only_service_accounts_match() {
        for (pattern, user, expected) in [
            ("storage/manager", "system:serviceaccount:storage:manager", true),
            ("storage/manager", "system:serviceaccount:storage:manager2", false),
            ("storage/manager", "system:serviceaccount:storages:manager", false),
            ("storage/*", "system:serviceaccount:storage:anything", true),
            ("*/manager", "system:serviceaccount:any:manager", true),
            ("s*/m*", "system:serviceaccount:storage:manager", true),
            ("s*/manager", "system:serviceaccount:shop:x:manager", false),
            ("*/*", "system:serviceaccount:a:b", true),
            ("*/*", "system:serviceaccount:a", false),
            ("*/*", "system:node:a:b", false),
            ("*/*", "admin", false),
            ("*/*", "", false),
            ("*/*", "x-system:serviceaccount:a:b", false),
        ] {
            assert_eq!(
                ServiceAccount::new(pattern).unwrap().matches(user),
                expected,
                "{pattern} {user}"
            );
        }
    }

    #[test]
    fn what_names_no_service_account_is_refused_with_how_to_write_one() {
        for (text, expected) in [
            ("", "write NAMESPACE/NAME"),
            ("manager", "write NAMESPACE/NAME, as in"),
            ("system:serviceaccount:a:b", "write NAMESPACE/NAME"),
            ("system:serviceaccount:a/b", "write NAMESPACE/NAME"),
            ("/manager", "a namespace is never empty; write * for any"),
            ("storage/", "a service account's name is never empty"),
            ("a/b/c", "a service account's name holds no '/'"),
            ("a/B", "a service account's name holds no 'B'"),
            ("a:b/c", "a namespace holds no ':'"),
        ] {
            let error = ServiceAccount::new(text).unwrap_err();
            assert!(error.contains(expected), "{error:?} should say {expected:?}");
        }
    }

    #[test]
    fn it_reads_and_prints_as_it_was_written() {
        let account = ServiceAccount::new("team-*/*-manager").unwrap();
        assert_eq!(account.to_string(), "team-*/*-manager");
        assert!(account.matches(&user("team-a", "storage-manager")));
    }
}
