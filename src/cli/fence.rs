//! `leasehold fence`: a policy for the API server that lets only the pod that holds a Lease write what it leads.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::Serialize;

use super::{export::DocumentFormat, output, policy_file};
use crate::{
    cluster::{FenceCheckError, check_fence, connect},
    fence::{
        Enforcement, Fence, Manifest, NamespaceName, NamespacedName, Namespaces, Nobody, ObjectName,
        Resource, Selector, SubdomainName, anchor,
    },
    policy::Policy,
};

/// Flags of `leasehold fence`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What it does: a leader that was paused and goes on as if it still led knows nothing of its successor, and no elector can \
stop it. The API server can, where that leader writes to the API: the fence lets only the pod that holds the Lease write \
the objects that are fenced. Whose pod writes is told by the token that Kubernetes mounts into each pod; the Lease's \
holderIdentity must be the pod's name or uid, or begin with the name as in POD_UUID, the convention of client-go.

Examples:
  # Once in the cluster, and for good (why: leasehold fence --anchor):
  leasehold fence --anchor | kubectl apply -f -

  # What would be refused? The API server's audit log tells, in mode audit, the default:
  leasehold fence --lease shop/payments --resource v1/configmaps --name orders | kubectl apply -f -

  # Refuse it, after a look whether all that is named is there:
  leasehold fence --lease shop/payments --resource v1/configmaps --name orders --mode enforce \\
    --kubeconfig ~/.kube/config | kubectl apply -f -

  # Is it on? A write that changes nothing, by an account that may write but leads nothing, must be refused:
  kubectl -n shop patch configmap orders -p '{}' --dry-run=server --as system:serviceaccount:shop:payments

  # A resource of your own with its status, by label, and only what one service account writes:
  leasehold fence --lease shop/payments --resource example.com/v1/ledgers \\
    --resource example.com/v1/ledgers/status --selector app=payments \\
    --only-service-account shop/payments

What it cannot do: stop what a leader does outside of the API server (databases, queues, clouds); take back what was \
written before; see a takeover before the API server's own copy of the Lease does, some milliseconds later; tell a \
deletion from before and after the lease expired; or stop two pods of one name.

Exit code 1: --kubeconfig was given, and what the fence names is not there.")]
pub struct FenceArgs {
    /// The Lease whose holder leads.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        required_unless_present = "anchor",
        conflicts_with = "anchor"
    )]
    lease: Option<NamespacedName>,
    /// What only the leader may write: GROUP/VERSION/PLURAL[/SUBRESOURCE], VERSION/PLURAL for the core group, or a
    /// well-known kind. May be repeated.
    #[arg(
        long = "resource",
        value_name = "RESOURCE",
        required_unless_present = "anchor",
        conflicts_with = "anchor"
    )]
    resources: Vec<Resource>,
    /// The namespace of the objects; may be repeated [default: the Lease's].
    #[arg(long = "namespace", short, value_name = "NAMESPACE", conflicts_with_all = ["all_namespaces", "anchor"])]
    namespaces: Vec<NamespaceName>,
    /// The objects of all namespaces.
    #[arg(long, conflicts_with = "anchor")]
    all_namespaces: bool,
    /// The name of an object; may be repeated [default: all].
    #[arg(long = "name", value_name = "NAME", conflicts_with = "anchor")]
    names: Vec<ObjectName>,
    /// The objects that have these labels before or after the write: KEY=VALUE, KEY!=VALUE, KEY or !KEY, with commas
    /// between them [default: all].
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "anchor")]
    selector: Option<Selector>,
    /// The namespace of the pods that are elected [default: the Lease's].
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "anchor")]
    pod_namespace: Option<NamespaceName>,
    /// Look only at what this service account writes, and leave everybody else to RBAC; may be repeated [default: look
    /// at everybody but the garbage collector, the namespace controller and the API server].
    #[arg(
        long = "only-service-account",
        value_name = "NAMESPACE/NAME",
        conflicts_with = "anchor"
    )]
    only_service_accounts: Vec<NamespacedName>,
    /// While nobody holds the lease, or the Lease does not exist.
    #[arg(long, value_enum, default_value_t, conflicts_with = "anchor")]
    when_free: NobodyArg,
    /// When the holder writes although its lease has expired: by its own clock, which the policy's maxSkew allows for.
    #[arg(long, value_enum, default_value_t, conflicts_with = "anchor")]
    when_expired: NobodyArg,
    /// audit: refuse nothing, and let the API server's audit log tell what would be. enforce: refuse it.
    #[arg(long, value_enum, default_value_t, conflicts_with = "anchor")]
    mode: ModeArg,
    /// The policy whose breakGlass and maxSkew count; - is standard input [default: the default policy].
    #[arg(long, value_name = "FILE", conflicts_with = "anchor")]
    policy_file: Option<PathBuf>,
    /// The name of the policy; a second fence of the same Lease needs one of its own [default:
    /// leasehold-fence-NAMESPACE-NAME].
    #[arg(long, value_name = "NAME", conflicts_with = "anchor")]
    fence_name: Option<SubdomainName>,
    /// First ask the cluster of this kubeconfig whether the Lease and the resources are there, and tell what else may
    /// surprise; nothing is written there.
    #[arg(long, value_name = "FILE", conflicts_with = "anchor")]
    kubeconfig: Option<PathBuf>,
    /// Print instead what every cluster with fences needs once: a policy that matches nothing, and keeps the API server's
    /// watch of Leases alive when fences are deleted.
    #[arg(long)]
    anchor: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: DocumentFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum NobodyArg {
    /// Refuse it.
    #[default]
    Deny,
    /// Let it pass.
    Allow,
}

impl From<NobodyArg> for Nobody {
    fn from(arg: NobodyArg) -> Self {
        match arg {
            NobodyArg::Deny => Self::Deny,
            NobodyArg::Allow => Self::Allow,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    #[default]
    Audit,
    Enforce,
}

/// Runs `leasehold fence`.
///
/// # Errors
/// A policy that cannot be read, parts that do not fit together, or an output that cannot be written.
pub fn run(args: FenceArgs) -> anyhow::Result<ExitCode> {
    let format = args.output;
    let kubeconfig = args.kubeconfig.clone();
    let manifests = match fence(args)? {
        None => anchor(),
        Some(fence) => {
            if let Some(kubeconfig) = kubeconfig
                && !look(&kubeconfig, &fence)?
            {
                return Ok(ExitCode::from(1));
            }
            fence.manifests()
        }
    };
    let mut out = io::stdout().lock();
    match format {
        DocumentFormat::Json => output::json_document(&mut out, &List::of(&manifests))?,
        DocumentFormat::Yaml => yaml(&mut out, &manifests)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether what the fence names is there; what is not, and what may surprise, is told on standard error.
fn look(kubeconfig: &Path, fence: &Fence) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(async {
        let client = connect(Some(kubeconfig)).await?;
        anyhow::Ok(check_fence(&client, fence).await)
    })?;
    let mut err = io::stderr().lock();
    match outcome {
        Ok(surprises) => {
            for surprise in surprises {
                writeln!(err, "warning: {surprise}")?;
            }
            Ok(true)
        }
        Err(error @ (FenceCheckError::NoLease(_) | FenceCheckError::UnknownResource { .. })) => {
            writeln!(err, "leasehold: {error}")?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The fence that the flags describe; `None` for the anchor.
fn fence(args: FenceArgs) -> anyhow::Result<Option<Fence>> {
    let Some(lease) = args.lease else {
        return Ok(None);
    };
    let policy = match args.policy_file {
        Some(path) => policy_file::read(&path)?,
        None => Policy::default(),
    };
    let name = match args.fence_name {
        Some(name) => name,
        None => Fence::default_name(&lease)?,
    };
    let namespaces = match (args.all_namespaces, args.namespaces) {
        (true, _) => Namespaces::All,
        (false, none) if none.is_empty() => Namespaces::Named(vec![lease.namespace.clone()]),
        (false, some) => Namespaces::Named(some),
    };
    let document = policy.document();
    let fence = Fence {
        name,
        resources: args.resources,
        namespaces,
        names: args.names,
        selector: args.selector,
        pod_namespace: args.pod_namespace.unwrap_or_else(|| lease.namespace.clone()),
        only_service_accounts: args.only_service_accounts,
        when_free: args.when_free.into(),
        when_expired: args.when_expired.into(),
        enforcement: match args.mode {
            ModeArg::Audit => Enforcement::Audit,
            ModeArg::Enforce => Enforcement::Enforce,
        },
        max_skew: document.max_skew,
        break_glass: document.break_glass.clone(),
        lease,
    };
    fence.check()?;
    Ok(Some(fence))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Manifest],
}

impl<'a> List<'a> {
    fn of(items: &'a [Manifest]) -> Self {
        Self {
            api_version: "v1",
            kind: "List",
            items,
        }
    }
}

fn yaml(out: &mut impl Write, manifests: &[Manifest]) -> anyhow::Result<()> {
    for (number, manifest) in manifests.iter().enumerate() {
        if number > 0 {
            writeln!(out, "---")?;
        }
        for line in manifest.comment.lines() {
            writeln!(out, "# {line}")?;
        }
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        write!(
            out,
            "{}",
            serde_saphyr::to_string_with_options(manifest, options)?
        )?;
    }
    Ok(())
}
