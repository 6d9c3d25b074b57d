//! `leasehold policy explain`: what applies to one lease and writer, and which line of the policy decided it.

use std::{borrow::Cow, io::Write, path::PathBuf, str::FromStr};

use anyhow::Context;
use serde::Serialize;

use super::{
    output::{self, Format},
    policy_file,
};
use crate::{
    lease::{LeaseName, ObjectKind},
    policy::{Explanation, RuleExplanation, Setting, service_account_user},
};

/// Flags of `leasehold policy explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leasehold policy explain shop/payments --policy-file policy.yaml
  leasehold policy explain shop/payments --policy-file policy.yaml \\
    --labels app=payments,tier=backend
  leasehold policy explain storage/volume-1 --policy-file policy.yaml \\
    --service-account storage/volume-manager
  kubectl -n leasehold-system get configmap leasehold-policy \\
    -o jsonpath='{.data.policy\\.yaml}' |
    leasehold policy explain shop/payments --policy-file -")]
pub struct PolicyExplainArgs {
    /// The lease.
    #[arg(value_name = "NAMESPACE/NAME")]
    lease: NamespacedArg,
    /// The policy; - is standard input [default: the default policy].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// The labels that the lease has before the write, as in app=payments,tier=backend.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    labels: Vec<LabelArg>,
    /// The service account that writes. Without it, overrides for service accounts are left out and named.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service_account: Option<NamespacedArg>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// A lease or a service account as `NAMESPACE/NAME`.
#[derive(Clone, Debug)]
struct NamespacedArg {
    namespace: String,
    name: String,
}

impl FromStr for NamespacedArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if ![namespace, name]
                    .iter()
                    .any(|it| it.is_empty() || it.contains('/')) =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err("expected NAMESPACE/NAME, as in shop/payments".to_owned()),
        }
    }
}

/// A label as `KEY=VALUE`.
#[derive(Clone, Debug)]
struct LabelArg {
    key: String,
    value: String,
}

impl FromStr for LabelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("expected KEY=VALUE, as in app=payments".to_owned()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Explained<'a> {
    lease: String,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Runs `leasehold policy explain`.
///
/// # Errors
/// A policy that cannot be read, or an output that cannot be written.
pub(super) fn run(args: PolicyExplainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let PolicyExplainArgs {
        lease,
        policy_file,
        labels,
        service_account,
        output,
    } = args;
    let asked = service_account.is_some();
    let user = service_account
        .map(|account| service_account_user(&account.namespace, &account.name))
        .unwrap_or_default();
    let lease = LeaseName {
        kind: ObjectKind::default(),
        namespace: lease.namespace.into(),
        name: lease.name.into(),
    };
    let labels: Vec<(Cow<'_, str>, Cow<'_, str>)> = labels
        .into_iter()
        .map(|label| (label.key.into(), label.value.into()))
        .collect();
    let explanation = match policy_file {
        Some(path) => Explanation::of(&policy_file::text(&path)?, &lease, &labels, &user)
            .with_context(|| policy_file::named(&path))?,
        None => Explanation::of("", &lease, &labels, &user)?,
    };
    match output {
        Format::Json => {
            let explained = Explained {
                lease: lease.to_string(),
                explanation: &explanation,
            };
            output::json_document(out, &explained)?;
        }
        Format::Table => print(out, &explanation, asked)?,
    }
    Ok(())
}

fn print(out: &mut impl Write, explanation: &Explanation, asked: bool) -> anyhow::Result<()> {
    let line = |line: Option<u64>| line.map_or_else(|| "-".to_owned(), |line| line.to_string());
    let Explanation {
        settings,
        rules,
        overrides,
    } = explanation;
    let rows = settings.iter().map(
        |Setting {
             setting,
             value,
             decided_by,
             line: decided_on,
         }| {
            [
                setting.clone(),
                value.clone(),
                decided_by.to_string(),
                line(*decided_on),
            ]
        },
    );
    writeln!(
        out,
        "{}",
        output::table(["SETTING", "VALUE", "DECIDED BY", "LINE"], rows)
    )?;
    let rows = rules.iter().map(|RuleExplanation { rule, actions }| {
        let [timed, counted, beating, untimed] = actions.map(|(_, action)| action.to_string());
        [rule.to_string(), timed, counted, beating, untimed]
    });
    writeln!(
        out,
        "\nWhat each rule leads to at most, by what the lease is for: timed (it has leaseDurationSeconds),\n\
         counted (it has leaseTransitions alone), beating (neither, and both times), untimed (the rest).\n"
    )?;
    writeln!(
        out,
        "{}",
        output::table(["RULE", "TIMED", "COUNTED", "BEATING", "UNTIMED"], rows)
    )?;
    if overrides.is_empty() {
        return Ok(());
    }
    let rows = overrides.iter().map(|one| {
        let matches = match one.failing {
            None => "yes".to_owned(),
            Some("serviceAccounts") if !asked => {
                "only for its service accounts; name one by --service-account".to_owned()
            }
            Some(criterion) => format!("no: {criterion}"),
        };
        [one.number.to_string(), line(one.line), matches]
    });
    writeln!(out, "\n{}", output::table(["OVERRIDE", "LINE", "MATCHES"], rows))?;
    Ok(())
}
