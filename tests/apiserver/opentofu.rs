//! Real OpenTofu, which locks its states by Leases that have a holder and nothing else: no duration, no times, no count.
//! Nothing of what it writes is denied or warned of, and its locks hold.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test,
    electors::{Clocks, ensure_undisturbed, refusals},
    harness::{
        audit::text, leases::Leases, pods::Pod, process::Process, schedule::Phase, until, world::World,
    },
    test,
};

/// What tells the states of this configuration from others in the namespace.
const SUFFIX: &str = "shop";

/// The Lease that locks the state of the default workspace.
const LOCK: &str = "lock-tfstate-default-shop";

/// Where OpenTofu says who holds a lock.
const LOCK_INFO: &str = "/metadata/annotations/app.terraform.io~1lock-info";

/// What OpenTofu says, and not the API server, where a lock is held.
const REFUSAL: &str = "the state is already locked by another tofu client";

/// What becomes of a lock when OpenTofu makes a new state: in `tofu init`, in `tofu workspace new`.
const MADE: &[&str] = &["create", "release"];

/// What becomes of it in each command that locks the state.
const LOCKED: &[&str] = &["acquire", "release"];

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    let phase = Phase::Undisturbed;
    vec![
        test(
            phase,
            "opentofu::applies_and_deletes_its_states",
            applies_and_deletes_its_states,
        ),
        test(
            phase,
            "opentofu::its_own_lock_keeps_a_second_out",
            its_own_lock_keeps_a_second_out,
        ),
        test(
            phase,
            "opentofu::another_unlocks_what_a_killed_one_locked",
            another_unlocks_what_a_killed_one_locked,
        ),
    ]
}

/// Somebody who runs OpenTofu, such as the job of a pipeline: a pod's credentials, a working directory.
struct Runner {
    pod: String,
    directory: PathBuf,
    /// A program and the arguments that come first.
    command: Vec<String>,
}

impl Runner {
    /// Two with the same configuration, each in a pod, after `tofu init`.
    async fn two(world: &World, namespace: &str) -> anyhow::Result<[Self; 2]> {
        let [first, second, _] = Pod::three(world, namespace).await?;
        Ok([
            Self::begin(world, namespace, &first).await?,
            Self::begin(world, namespace, &second).await?,
        ])
    }

    async fn begin(world: &World, namespace: &str, pod: &Pod) -> anyhow::Result<Self> {
        let directory = world.folder().join(format!("{namespace}-{}", pod.name));
        std::fs::create_dir_all(&directory)?;
        // The resource is OpenTofu's own: no provider is downloaded.
        let configuration = format!(
            r#"
terraform {{
  backend "kubernetes" {{
    namespace     = "{namespace}"
    secret_suffix = "{SUFFIX}"
  }}
}}

variable "command" {{
  default = "true"
}}

resource "terraform_data" "step" {{
  input            = var.command
  triggers_replace = var.command

  provisioner "local-exec" {{
    command = var.command
  }}
}}

output "command" {{
  value = terraform_data.step.output
}}
"#
        );
        std::fs::write(directory.join("main.tf"), configuration)?;
        // Nothing of this machine's user: no settings, no plugins, no credentials.
        let mut command = ["env", "-i", "TF_IN_AUTOMATION=1", "TF_INPUT=0"]
            .map(str::to_owned)
            .to_vec();
        command.push(format!("PATH={}", std::env::var("PATH")?));
        command.push(format!("HOME={}", directory.display()));
        command.push(format!("KUBE_CONFIG_PATH={}", pod.kubeconfig.display()));
        command.push(world.assets.tofu.display().to_string());
        command.push(format!("-chdir={}", directory.display()));
        let runner = Self {
            pod: pod.name.clone(),
            directory,
            command,
        };
        runner.run("init", &[]).await?;
        Ok(runner)
    }

    /// Runs a command to its end, and gives what it printed; an error with that where it failed.
    async fn run(&self, command: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let (success, said) = self.try_run(command, arguments).await?;
        ensure!(
            success,
            "tofu {command} {} failed in pod {}:\n{said}",
            arguments.join(" "),
            self.pod
        );
        Ok(said)
    }

    /// Runs a command that OpenTofu itself is to refuse, since the state is locked by this holder.
    async fn refused(&self, command: &str, arguments: &[&str], holder: &str) -> anyhow::Result<()> {
        let (success, said) = self.try_run(command, arguments).await?;
        ensure!(
            !success && said.contains(REFUSAL) && said.contains(holder),
            "tofu {command} was to be refused by the lock of {holder}, but (succeeded: {success}):\n{said}"
        );
        Ok(())
    }

    async fn try_run(&self, command: &str, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let (program, first) = self.command.split_first().context("no command")?;
        let output = Command::new(program)
            .args(first)
            .args(command.split(' '))
            .args(arguments)
            .arg("-no-color")
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run tofu")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// `tofu apply` of a configuration that runs this command.
    async fn apply(&self, command: &str) -> anyhow::Result<()> {
        self.run("apply", &["-auto-approve", &format!("-var=command={command}")])
            .await?;
        Ok(())
    }

    /// Starts `tofu apply`, and does not wait for its end.
    async fn start_apply(&self, world: &World, arguments: &[&str]) -> anyhow::Result<Process> {
        let (program, first) = self.command.split_first().context("no command")?;
        let name = self.directory.file_name().context("no name")?.to_string_lossy();
        let mut all: Vec<&str> = first.iter().map(String::as_str).collect();
        all.extend(["apply", "-auto-approve", "-no-color"]);
        all.extend(arguments);
        Process::start(world.folder(), &name, Path::new(program), all).await
    }

    /// The command that was applied last, by whomever, as this one reads it in the state.
    async fn applied(&self) -> anyhow::Result<String> {
        self.run("output -raw command", &[]).await
    }

    /// How often this one looked who holds the lock.
    async fn looks(&self, world: &World, leases: &Leases) -> anyhow::Result<usize> {
        let audit = world.plane().await?.audit()?;
        let looks = audit.0.iter().filter(|event| {
            text(event, "/verb") == "get"
                && text(event, "/objectRef/namespace") == leases.namespace
                && text(event, "/objectRef/name") == LOCK
                && event.pointer("/user/extra/authentication.kubernetes.io~1pod-name")
                    == Some(&json!([self.pod]))
        });
        Ok(looks.count())
    }
}

/// An apply that holds the lock until it is told to go on, or until this is dropped.
struct Held {
    apply: Process,
    /// The identity of the one apply: OpenTofu makes another for each.
    holder: String,
    /// A pipe that the apply reads a line from; open at both ends here, so that to open it waits for nobody.
    pipe: File,
}

impl Held {
    async fn begin(world: &World, leases: &Leases, runner: &Runner) -> anyhow::Result<Self> {
        let path = runner.directory.join("pipe");
        let made = Command::new("mkfifo").arg(&path).status().await?;
        ensure!(made.success(), "mkfifo failed ({made})");
        let pipe = File::options().read(true).write(true).open(&path)?;
        let command = format!("-var=command=read line < {}", path.display());
        let apply = runner.start_apply(world, &[&command]).await?;
        let holder = until("an apply to lock the state", || async {
            apply.ensure_running()?;
            holder(leases).await
        })
        .await?;
        Ok(Self { apply, holder, pipe })
    }

    /// Lets the apply go on, and waits for its end.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.pipe.write_all(b"go on\n")?;
        let status = self.apply.wait().await?;
        ensure!(
            status.success(),
            "the apply ended with {status}:\n{}",
            self.apply.log_tail(30)
        );
        Ok(())
    }
}

/// Who holds the lock of the default workspace for an apply.
async fn holder(leases: &Leases) -> anyhow::Result<Option<String>> {
    let lease = leases.api.get(&leases.path(LOCK)).await?.body;
    let holder = text(&lease, "/spec/holderIdentity");
    let applies = text(&lease, LOCK_INFO).contains("OperationTypeApply");
    Ok(applies.then(|| holder.to_owned()))
}

/// Checks that the lock of the default workspace is there, free, and OpenTofu's own work.
async fn ensure_free(leases: &Leases) -> anyhow::Result<()> {
    let lease = leases.get(LOCK).await?;
    ensure!(
        lease.pointer("/spec") == Some(&json!({}))
            && lease.pointer(LOCK_INFO).is_none()
            && text(&lease, "/metadata/labels/tfstate") == "true",
        "not a lock of OpenTofu that is free: {lease}"
    );
    Ok(())
}

/// Checks that these changes of Leases, and no others, were made in this namespace, that Leasehold reviewed each, and
/// that nobody was refused or warned.
async fn ensure_let_be(
    world: &World,
    leases: &Leases,
    refused_before: (f64, f64),
    expected: &[&str],
) -> anyhow::Result<()> {
    let webhook = &world.guard().await?.webhook;
    let audit = world.plane().await?.audit()?;
    let annotation = |event: &Value, name: &str| {
        let pointer = format!("/annotations/{webhook}~1{name}");
        text(event, &pointer).to_owned()
    };
    let mut changes = Vec::new();
    for event in audit.lease_writes(&leases.namespace) {
        let name = text(event, "/objectRef/name");
        ensure!(
            annotation(event, "verdict") == "allow" && annotation(event, "mode") == "enforce",
            "a write to {name} was not reviewed and allowed: {event}"
        );
        changes.push(annotation(event, "change"));
    }
    ensure!(changes == expected, "expected {expected:?}, got {changes:?}");
    let distinct: Vec<&str> = ["create", "acquire", "release", "delete"]
        .into_iter()
        .filter(|change| expected.contains(change))
        .collect();
    ensure_undisturbed(world, leases, refused_before, &distinct, Clocks::Right).await?;
    let records = world.guard().await?.audit_records_now(&leases.namespace)?;
    let elects_by_time = records
        .iter()
        .find(|record| text(record, "/purpose") != "untimed");
    ensure!(
        elects_by_time.is_none(),
        "taken for an election: {elects_by_time:?}"
    );
    Ok(())
}

async fn applies_and_deletes_its_states(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("tofu-applies").await?;
    let before = refusals(world, guard).await?;
    let [first, second] = Runner::two(world, &leases.namespace).await?;

    first.apply("echo one").await?;
    ensure_free(&leases).await?;
    second.apply("echo two").await?;
    ensure_free(&leases).await?;
    ensure!(first.applied().await? == "echo two");

    // A workspace has a state, and a lock, of its own.
    second.run("workspace new", &["staging"]).await?;
    second.apply("echo three").await?;
    second.run("destroy", &["-auto-approve"]).await?;
    second.run("workspace select", &["default"]).await?;
    second.run("workspace delete", &["staging"]).await?;
    let reply = leases.api.get(&leases.path("lock-tfstate-staging-shop")).await?;
    ensure!(
        reply.code == 404,
        "the workspace is deleted, its lock is not: {reply:?}"
    );

    let staging: [&[&str]; 5] = [MADE, LOCKED, LOCKED, LOCKED, &["delete"]];
    let changes = [[MADE, LOCKED, LOCKED].concat(), staging.concat()].concat();
    ensure_let_be(world, &leases, before, &changes).await
}

async fn its_own_lock_keeps_a_second_out(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("tofu-contends").await?;
    let before = refusals(world, guard).await?;
    let [first, second] = Runner::two(world, &leases.namespace).await?;

    let held = Held::begin(world, &leases, &first).await?;
    second
        .refused("plan", &["-lock-timeout=0s"], &held.holder)
        .await?;
    second
        .refused("apply", &["-auto-approve", "-lock-timeout=0s"], &held.holder)
        .await?;

    // One that waits gets the lock, once it is free and no sooner.
    let looks = second.looks(world, &leases).await?;
    let mut waiting = second
        .start_apply(world, &["-lock-timeout=60s", "-var=command=echo waited"])
        .await?;
    until("the second to look at the lock", || async {
        waiting.ensure_running()?;
        Ok((second.looks(world, &leases).await? > looks).then_some(()))
    })
    .await?;
    ensure!(holder(&leases).await?.as_ref() == Some(&held.holder));
    held.finish().await?;
    let status = waiting.wait().await?;
    ensure!(status.success(), "{status}: {}", waiting.log_tail(30));
    ensure!(first.applied().await? == "echo waited");
    ensure_free(&leases).await?;

    let changes = [MADE, LOCKED, LOCKED].concat();
    ensure_let_be(world, &leases, before, &changes).await
}

async fn another_unlocks_what_a_killed_one_locked(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("tofu-unlocks").await?;
    let before = refusals(world, guard).await?;
    let [first, second] = Runner::two(world, &leases.namespace).await?;

    let mut held = Held::begin(world, &leases, &first).await?;
    held.apply.kill().await?;
    second
        .refused("apply", &["-auto-approve", "-lock-timeout=0s"], &held.holder)
        .await?;
    second.run("force-unlock", &["-force", &held.holder]).await?;
    ensure_free(&leases).await?;
    second.apply("echo unlocked").await?;
    ensure!(second.applied().await? == "echo unlocked");
    ensure_free(&leases).await?;

    let changes = [MADE, LOCKED, LOCKED].concat();
    ensure_let_be(world, &leases, before, &changes).await
}
