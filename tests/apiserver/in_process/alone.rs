//! The exported policy alone: what it refuses, and whom it leaves alone.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{PARTS, POLICIES, guarded_leases, install};
use crate::{
    Test,
    attacks::{Attack, LEASE, VALID_SECONDS, held, longest_name, seconds_left, victim},
    electors::{elector, renewals, sees_leader, started_leading},
    harness::{
        api::Reply,
        leases::{Edit, Leases, Verb},
        policies,
        process::Process,
        schedule::Phase,
        until,
        world::World,
    },
    test,
};

const PHASE: Phase = Phase::InProcess;
const WHICH: &str = "alone";
const DENY: &str = "alone.deny.leases.leasehold.dev";

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (verb, attack) in Attack::all() {
        tests.push(test(
            PHASE,
            attack.test_name("in_process::early_takeover_is_refused", verb),
            move |world| early_takeover_is_refused(world, verb, attack),
        ));
    }
    for (version, clock) in [("client-go-0.37", "0s"), ("client-go-0.33", "1h")] {
        tests.push(test(
            PHASE,
            format!("in_process::correct_electors_are_left_alone::{version}::clock_{clock}"),
            move |world| correct_electors_are_left_alone(world, version, clock),
        ));
    }
    tests.extend([
        test(
            PHASE,
            "in_process::each_rule_refuses_and_says_why",
            each_rule_refuses_and_says_why,
        ),
        test(
            PHASE,
            "in_process::the_longest_names_are_judged",
            the_longest_names_are_judged,
        ),
        test(
            PHASE,
            "in_process::an_operator_passes_with_a_warning",
            an_operator_passes_with_a_warning,
        ),
        test(
            // After the phase in which the longest of all policies is there.
            Phase::Alone(0),
            "in_process::no_expression_is_warned_of",
            no_expression_is_warned_of,
        ),
    ]);
    tests
}

/// A namespace of its own under the default policy.
async fn default_policy(world: &World, namespace: &str) -> anyhow::Result<Leases> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_try_init(|| async { install(world, WHICH, "", false).await.map(drop) })
        .await?;
    guarded_leases(world, WHICH, &format!("in-process-{namespace}")).await
}

fn ensure_refused(reply: &Reply, rule: &str) -> anyhow::Result<()> {
    ensure!(
        reply.code == 403 && reply.reason() == "Forbidden",
        "expected 403 Forbidden, got {} {} {}",
        reply.code,
        reply.reason(),
        reply.message()
    );
    let message = reply.message();
    let told = format!("ValidatingAdmissionPolicy '{DENY}' with binding '{DENY}' denied request: {rule}: ");
    ensure!(message.contains(&told), "{message}");
    let more = format!(". See: leasehold explain {rule}");
    ensure!(
        message.ends_with(&more),
        "the words are not the webhook's: {message}"
    );
    Ok(())
}

async fn early_takeover_is_refused(world: &'static World, verb: Verb, attack: Attack) -> anyhow::Result<()> {
    let leases = default_policy(world, &format!("{}-{}", attack.slug(), verb.slug())).await?;
    let (before, edit) = victim(&leases, attack).await?;
    for edit in [edit.clone().dry(), edit] {
        let reply = leases.edit(verb, LEASE, &edit).await?;
        // Without its own stamp the write tells no time, and is refused for just that.
        if attack == Attack::ClearedStamps {
            ensure_refused(&reply, "stamp-tampered")?;
            continue;
        }
        ensure_refused(&reply, "takeover-before-expiry")?;
        let left = seconds_left(reply.message())?;
        ensure!(
            (VALID_SECONDS - 60..=VALID_SECONDS).contains(&left),
            "{left} s left of {VALID_SECONDS}"
        );
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    Ok(())
}

/// The audit log's annotations of one namespace by the exported policies, without the policies' names.
async fn told(world: &World, namespace: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut told = Vec::new();
    for event in world.plane().await?.audit()?.lease_writes(namespace) {
        let annotations = event.pointer("/annotations").and_then(Value::as_object);
        for (key, value) in annotations.into_iter().flatten() {
            if let Some((_, rule)) = key.split_once(".leases.leasehold.dev/") {
                told.push((rule.to_owned(), value.as_str().unwrap_or_default().to_owned()));
            }
        }
    }
    Ok(told)
}

async fn each_rule_refuses_and_says_why(world: &'static World) -> anyhow::Result<()> {
    let leases = default_policy(world, "rules").await?;
    let now = leases.api.now().await?;
    // A name that has to be escaped, wherever it stands.
    let odd = "o\"dd\\ one'";
    leases
        .create(LEASE, "a", held(odd, now, 15, 3))
        .await?
        .accepted()?;
    let reply = leases
        .edit(
            Verb::MergePatch,
            LEASE,
            &Edit::spec("a", json!({"leaseDurationSeconds": 604_801})),
        )
        .await?;
    ensure_refused(&reply, "duration-out-of-bounds")?;
    ensure!(
        reply.message().contains(
            r#"duration-out-of-bounds: "o\"dd\\ one'" sets a duration of 604801 s on lease in-process-rules/lock, over the maximum of 7d"#
        ),
        "{}",
        reply.message()
    );
    let release = Edit::spec("a", json!({"holderIdentity": ""}));
    leases.edit(Verb::Put, LEASE, &release).await?.accepted()?;
    for (transitions, rule) in [(3, "transition-not-counted"), (5, "transition-not-counted")] {
        let reply = leases
            .edit(
                Verb::Put,
                LEASE,
                &Edit::spec("b", held("b", now, 15, transitions)),
            )
            .await?;
        ensure_refused(&reply, rule)?;
    }
    let reply = leases
        .edit(
            Verb::Put,
            LEASE,
            &Edit::spec("a", json!({"leaseTransitions": i32::MAX})),
        )
        .await?;
    ensure_refused(&reply, "transition-overflow")?;
    let forged = json!([{}]);
    let reply = leases
        .edit(
            Verb::Put,
            LEASE,
            &Edit::labels("b", json!({"app": "x"})).with_managed_fields(forged),
        )
        .await?;
    ensure_refused(&reply, "stamp-tampered")?;
    // What is wrong besides is told to the audit log, as the webhook tells it.
    let reply = leases
        .edit(Verb::Put, LEASE, &Edit::spec("c", held("c", now, 1, 9)))
        .await?;
    ensure_refused(&reply, "transition-not-counted")?;
    let told = told(world, &leases.namespace).await?;
    for (rule, start) in [
        (
            "transition-not-counted",
            "denied: \"c\" must set leaseTransitions",
        ),
        ("duration-out-of-bounds", "denied: \"c\" sets a duration of 1 s"),
    ] {
        ensure!(
            told.iter()
                .any(|(key, value)| key == rule && value.starts_with(start)),
            "the audit log has no {rule}: {start}: {told:?}"
        );
    }
    Ok(())
}

/// What costs too much to evaluate would pass.
async fn the_longest_names_are_judged(world: &'static World) -> anyhow::Result<()> {
    let leases = default_policy(world, "longest").await?;
    let now = leases.api.now().await?;
    let name = longest_name();
    for holder in ["a", name.as_str()] {
        leases
            .create(LEASE, "a", held(holder, now, VALID_SECONDS, 0))
            .await?
            .accepted()?;
        for successor in ["b".to_owned(), format!("{}b", name.split_at(1).1)] {
            let take = Edit::spec("b", held(&successor, now, VALID_SECONDS, 1));
            let reply = leases.edit(Verb::Put, LEASE, &take).await?;
            ensure_refused(&reply, "takeover-before-expiry")
                .with_context(|| format!("{} characters after {}", successor.len(), holder.len()))?;
        }
        leases.delete(LEASE).await?.accepted()?;
    }
    Ok(())
}

async fn an_operator_passes_with_a_warning(world: &'static World) -> anyhow::Result<()> {
    let leases = default_policy(world, "operator").await?;
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let operator = Leases {
        api: world.admin().await?,
        namespace: leases.namespace.clone(),
    };
    let takeover = Edit::spec("operator", held("operator", now, VALID_SECONDS, 1));
    let reply = operator.edit(Verb::Put, LEASE, &takeover).await?;
    let warned = reply
        .warnings
        .iter()
        .any(|warning| warning.contains("takeover-before-expiry: "));
    ensure!(warned, "no warning: {:?}", reply.warnings);
    reply.accepted()?;
    Ok(())
}

/// Three terms of client-go's electors: killed, released, acquired.
async fn correct_electors_are_left_alone(
    world: &'static World,
    version: &'static str,
    clock: &'static str,
) -> anyhow::Result<()> {
    let leases = default_policy(world, &version.replace('.', "-")).await?;
    let mut a = elector(world, &leases, "a", version, clock).await?;
    a.event(started_leading).await.context("a does not acquire")?;
    let mut b = elector(world, &leases, "b", version, "0s").await?;
    b.event(sees_leader("a")).await?;
    renewals(&leases, 3).await?;
    a.kill().await?;
    b.event(started_leading).await.context("b does not take over")?;
    let mut c = elector(world, &leases, "c", version, "0s").await?;
    c.event(sees_leader("b")).await?;
    ensure!(b.terminate().await?.success(), "b: {}", b.log_tail(10));
    c.event(started_leading).await.context("c does not acquire")?;
    renewals(&leases, 1).await?;
    ensure!(c.terminate().await?.success(), "c: {}", c.log_tail(10));
    let lease = leases.get(LEASE).await?;
    ensure!(
        lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64) == Some(2),
        "not counted: {lease}"
    );
    // The probe that finds out whether the policy is there is refused for its duration.
    let told = told(world, &leases.namespace).await?;
    let wrong: Vec<_> = told
        .iter()
        .filter(|(_, text)| !text.contains("\"probe\""))
        .filter(|(rule, _)| clock == "0s" || rule != "clock-skewed")
        .collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    ensure!(
        (clock == "0s") != told.iter().any(|(rule, _)| rule == "clock-skewed"),
        "a clock that is {clock} off: {told:?}"
    );
    Ok(())
}

/// The controller that type-checks policies is the controller-manager's.
async fn no_expression_is_warned_of(world: &'static World) -> anyhow::Result<()> {
    default_policy(world, "types").await?;
    let plane = world.plane().await?;
    let admin = plane.admin()?;
    // A policy with settings that differ by lease, and one that is known to be warned of.
    let document = "overrides: [{match: {labels: {app: x*}}, mode: audit, rules: {duration-out-of-bounds: {max: 2h}}}]\n\
                    breakGlass: {requireAnnotation: true}";
    let mut names = install(world, "types", document, false).await?;
    names.extend(PARTS.map(|part| format!("{WHICH}.{part}.leases.leasehold.dev")));
    let wrong = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "types.wrong"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"], "resources": ["leases"], "operations": ["CREATE"],
            }]},
            "validations": [{"expression": "object.spec.nothing == 1"}],
        },
    });
    admin.post(POLICIES, &wrong).await?.accepted()?;
    let kubeconfig = plane.admin_kubeconfig().display().to_string();
    let controller = Process::start(
        world.folder(),
        "type-checker",
        &world.assets.binary("kube-controller-manager"),
        [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--secure-port=0".to_owned(),
            "--leader-elect=false".to_owned(),
            "--controllers=validatingadmissionpolicy-status-controller".to_owned(),
        ],
    )
    .await?;
    let warnings = async |name: &str| {
        until("the policy to be type-checked", || async {
            controller.ensure_running()?;
            let policy = admin.get(&format!("{POLICIES}/{name}")).await?.accepted()?;
            let checked = policy.pointer("/status/typeChecking").is_some();
            Ok(checked.then(|| {
                policy
                    .pointer("/status/typeChecking/expressionWarnings")
                    .cloned()
                    .unwrap_or_default()
            }))
        })
        .await
    };
    for name in names {
        let found = warnings(&name).await.with_context(|| name.clone())?;
        ensure!(found.is_null(), "{name}: {found}");
    }
    ensure!(
        warnings("types.wrong").await?.is_array(),
        "what is wrong is not warned of"
    );
    drop(controller);
    policies::settled(&admin, "types.settled").await
}
