//! How a rule declares its settings, so that its documentation, defaults, schema and overrides have one source.

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::policy::{Action, AdvisoryAction, Seconds, in_process::Settings};

/// The settings of one rule, whole or in part.
pub trait RuleSettings {
    /// The same fields, each of which may be left out: what an override says of this rule.
    type Partial: Clone + fmt::Debug + Default + PartialEq + Eq + Serialize + DeserializeOwned + JsonSchema;

    /// These settings with every field of `partial` that is there in place of their own.
    fn apply(&mut self, partial: &Self::Partial);

    /// The same fields, each as CEL.
    type Cel;

    /// These settings under overrides, by their index, as CEL.
    fn cel(&self, rule: &str, overrides: &[(usize, &Self::Partial)], settings: &mut Settings) -> Self::Cel;

    /// Whether the settings agree with each other.
    ///
    /// # Errors
    /// In one line, which of them contradict each other.
    fn consistent(&self) -> Result<(), String>;
}

/// The type of one setting: a value, or a group of settings.
pub(super) trait Field: Sized {
    /// What an override may state of it.
    type Partial: Clone + fmt::Debug + PartialEq + Eq + Serialize + DeserializeOwned + JsonSchema;

    /// The setting as CEL.
    type Cel;

    /// The setting with what `partial` states in place of its own.
    fn apply(&mut self, partial: &Self::Partial);

    /// The setting under overrides, by their index, as CEL.
    fn cel(&self, name: &str, overrides: Vec<(usize, &Self::Partial)>, settings: &mut Settings) -> Self::Cel;
}

/// A group of settings.
impl<T: RuleSettings> Field for T {
    type Partial = T::Partial;
    type Cel = T::Cel;

    fn apply(&mut self, partial: &Self::Partial) {
        RuleSettings::apply(self, partial);
    }

    fn cel(&self, name: &str, overrides: Vec<(usize, &Self::Partial)>, settings: &mut Settings) -> Self::Cel {
        RuleSettings::cel(self, name, &overrides, settings)
    }
}

/// Declares types whose values an override states whole.
macro_rules! plain_fields {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::policy::rules::settings::Field for $type {
            type Partial = Self;
            type Cel = $crate::policy::in_process::Setting;

            fn apply(&mut self, partial: &Self) {
                self.clone_from(partial);
            }

            fn cel(
                &self,
                name: &str,
                overrides: Vec<(usize, &Self)>,
                settings: &mut $crate::policy::in_process::Settings,
            ) -> Self::Cel {
                settings.setting(name, self, overrides.into_iter().map(|(index, value)| (index, value.clone())))
            }
        }
    )*};
}

plain_fields!(Action, AdvisoryAction, Seconds);

/// Declares a rule's settings: a struct whose doc comment is the rule's documentation and whose fields carry
/// their defaults. `check with FUNCTION` names a `fn(&Settings) -> Result<(), String>` that refuses settings
/// which contradict each other; a contradiction is between two fields.
macro_rules! rule_settings {
    (
        $(#[doc = $documentation:literal])*
        pub struct $settings:ident = $name:literal { $($fields:tt)* }
        $(check with $consistent:path;)?
    ) => {
        settings_group! {
            $(#[doc = $documentation])*
            pub struct $settings { $($fields)* }
            $(check with $consistent;)?
        }

        impl $settings {
            pub(super) const NAME_AND_DOCUMENTATION: (&'static str, &'static str) =
                ($name, concat!($($documentation, "\n"),*));
        }
    };
}

/// Declares settings that belong together, each with its default: those of a rule, or a part of them.
macro_rules! settings_group {
    (
        $(#[doc = $documentation:literal])*
        pub struct $settings:ident {
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

        impl Default for $settings {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl<'de> serde::Deserialize<'de> for $settings {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use crate::policy::rules::settings::RuleSettings;
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
                settings.consistent().map_err(serde::de::Error::custom)?;
                Ok(settings)
            }
        }

        const _: () = {
            use crate::policy::rules::settings::Field;

            /// What an override says of these settings; what it leaves out stays as it is.
            #[derive(
                Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
            )]
            #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
            #[schemars(inline)]
            pub struct Partial {
                $(
                    $(#[doc = $field_documentation])*
                    #[serde(skip_serializing_if = "Option::is_none")]
                    $field: Option<<$type as Field>::Partial>,
                )*
            }

            /// The settings as CEL.
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct Cel {
                $(
                    #[allow(dead_code, reason = "CEL cannot hold every rule")]
                    pub(super) $field: <$type as Field>::Cel,
                )*
            }

            impl crate::policy::rules::settings::RuleSettings for $settings {
                type Partial = Partial;
                type Cel = Cel;

                fn cel(
                    &self,
                    rule: &str,
                    overrides: &[(usize, &Partial)],
                    settings: &mut crate::policy::in_process::Settings,
                ) -> Cel {
                    Cel {
                        $($field: Field::cel(
                            &self.$field,
                            &format!("{rule}_{}", stringify!($field)),
                            overrides.iter().filter_map(|(index, it)| Some((*index, it.$field.as_ref()?))).collect(),
                            settings,
                        ),)*
                    }
                }

                fn apply(&mut self, partial: &Partial) {
                    $(if let Some(value) = &partial.$field {
                        Field::apply(&mut self.$field, value);
                    })*
                }

                fn consistent(&self) -> Result<(), String> {
                    $($consistent(self)?;)?
                    Ok(())
                }
            }
        };
    };
}

/// Declares the struct of all rules' settings, each under its rule's name, and its partial counterpart.
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

        /// What an override says of the rules; what it leaves out stays as it is.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct PartialRules {
            $(
                #[allow(missing_docs, reason = "the type says it all")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $module: Option<<$settings as RuleSettings>::Partial>,
            )*
        }

        impl PartialRules {
            /// Whether no field of any rule is there.
            pub fn is_empty(&self) -> bool {
                $(self.$module.as_ref().is_none_or(|partial| *partial == Default::default()) &&)* true
            }
        }

        impl Rules {
            /// Every rule with the part of it that the API server can hold, under overrides, in the order in which they
            /// are asked.
            pub(in crate::policy) fn in_process(
                &self,
                tolerance: Tolerance,
                overrides: &[Override],
                settings: &mut Settings,
            ) -> Vec<(RuleName, InProcess)> {
                let mut rules = Vec::new();
                $({
                    let stated: Vec<_> = overrides
                        .iter()
                        .enumerate()
                        .filter_map(|(index, one)| Some((index, one.rules.$module.as_ref()?)))
                        .collect();
                    let cel = self.$module.cel(stringify!($module), &stated, settings);
                    rules.push((RuleName($settings::NAME), $settings::in_process(&cel, tolerance)));
                })*
                rules
            }

            /// Puts every field of `partial` that is there in place of these settings' own.
            pub fn apply(&mut self, partial: &PartialRules) {
                $(if let Some(partial) = &partial.$module {
                    self.$module.apply(partial);
                })*
            }

            /// Whether the settings of each rule agree with each other.
            ///
            /// # Errors
            /// The first rule whose settings contradict each other, and which do.
            pub fn consistent(&self) -> Result<(), (RuleName, String)> {
                $(self.$module.consistent().map_err(|problem| (RuleName($settings::NAME), problem))?;)*
                Ok(())
            }
        }
    };
}
