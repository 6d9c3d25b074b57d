//! How a rule declares its settings, so that its documentation, defaults and schema have one source.

/// Declares a rule's settings: a struct whose doc comment is the rule's documentation and whose fields carry
/// their defaults. `check with FUNCTION` names a `fn(&Settings) -> Result<(), String>` that refuses settings
/// which contradict each other.
macro_rules! rule_settings {
    (
        $(#[doc = $documentation:literal])*
        pub struct $settings:ident = $name:literal {
            $($(#[doc = $field_documentation:literal])* $field:ident: $type:ty = $default:expr,)*
        }
        $(check with $consistent:path;)?
    ) => {
        $(#[doc = $documentation])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
        pub struct $settings {
            $($(#[doc = $field_documentation])* pub $field: $type,)*
        }

        impl $settings {
            pub(super) const NAME_AND_DOCUMENTATION: (&'static str, &'static str) =
                ($name, concat!($($documentation, "\n"),*));
        }

        impl Default for $settings {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl<'de> serde::Deserialize<'de> for $settings {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
                struct Unchecked {
                    $($field: $type,)*
                }
                impl Default for Unchecked {
                    fn default() -> Self {
                        let $settings { $($field,)* } = $settings::default();
                        Self { $($field,)* }
                    }
                }
                let Unchecked { $($field,)* } = Unchecked::deserialize(deserializer)?;
                let settings = Self { $($field,)* };
                $($consistent(&settings).map_err(serde::de::Error::custom)?;)?
                Ok(settings)
            }
        }
    };
}

/// Declares the struct of all rules' settings, each under its rule's name.
macro_rules! settings_of_all_rules {
    ($($module:ident::$settings:ident),*) => {
        /// The settings of every rule; a rule that a policy leaves out has its defaults.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Rules {
            $(
                #[allow(missing_docs, reason = "the type says it all")]
                pub $module: $settings,
            )*
        }
    };
}
