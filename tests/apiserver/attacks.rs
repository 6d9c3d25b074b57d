//! A client that breaks the rules, by every verb there is: each attempt is refused, and told why.

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        POLL,
        api::{Edit, Leases, Reply, Verb},
        audit::text,
        schedule::Phase,
        world::World,
    },
    test,
};

/// How long the attacked leases are valid: longer than any attack takes on the slowest machine.
const VALID_SECONDS: i64 = 600;
/// How long the leases are valid that a test waits for: the shortest that the policy allows.
const SHORT_SECONDS: i64 = 5;
/// `clockSlack` of the policy, by which a takeover may be early.
const SLACK_SECONDS: i64 = 1;

/// The tests of this file. The early takeovers in mode audit are among those of the policy.
pub(crate) fn tests() -> Vec<Test> {
    let phase = Phase::Attacked;
    let mut tests = Vec::new();
    for (verb, attack) in Attack::all() {
        tests.push(test(
            phase,
            attack.test_name("early_takeover", verb),
            move |world| async move {
                let leases = world
                    .leases(&format!("attack-{}-{}", attack.slug(), verb.slug()))
                    .await?;
                refused(world, &leases, verb, attack).await
            },
        ));
    }
    for verb in Verb::ALL {
        let slug = verb.slug();
        tests.push(test(
            phase,
            format!("attacks::takeover_after_expiry_passes::{slug}"),
            move |world| takeover_after_expiry_passes(world, verb),
        ));
        tests.push(test(
            phase,
            format!("attacks::wrong_count_is_refused::{slug}"),
            move |world| wrong_count_is_refused(world, verb),
        ));
        tests.push(test(
            phase,
            format!("attacks::overflow_is_refused::{slug}"),
            move |world| overflow_is_refused(world, verb),
        ));
    }
    tests.extend([
        test(
            phase,
            "attacks::takeover_of_a_young_blind_lease_is_refused",
            young_blind_lease,
        ),
        test(
            phase,
            "attacks::duration_out_of_bounds_is_refused",
            duration_out_of_bounds_is_refused,
        ),
        test(
            phase,
            "attacks::stamp_tampering_is_refused",
            stamp_tampering_is_refused,
        ),
        test(
            phase,
            "attacks::untracked_elector_is_warned",
            untracked_elector_is_warned,
        ),
    ]);
    tests
}

/// A way to take over early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// All fields as they should be, but for the time.
    Honest,
    /// renewTime an hour ahead.
    ClockAhead,
    /// renewTime an hour behind.
    ClockBehind,
    /// Nothing but the holder changes hands.
    HolderOnly,
    /// All stamps set back to long ago.
    ForgedStamps,
    /// An entry more that claims all fields since long ago.
    ForgedOwner,
    /// `managedFields: [{}]`.
    ClearedStamps,
}

impl Attack {
    const ALL: [Self; 7] = [
        Self::Honest,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::HolderOnly,
        Self::ForgedStamps,
        Self::ForgedOwner,
        Self::ClearedStamps,
    ];

    /// Every attack by every verb that can carry it. Server-side apply takes no managedFields (asserted among the
    /// stamps).
    pub(crate) fn all() -> impl Iterator<Item = (Verb, Self)> {
        Verb::ALL
            .into_iter()
            .flat_map(|verb| Self::ALL.map(|attack| (verb, attack)))
            .filter(|(verb, attack)| *verb != Verb::Apply || !attack.touches_stamps())
    }

    fn touches_stamps(self) -> bool {
        matches!(self, Self::ForgedStamps | Self::ForgedOwner | Self::ClearedStamps)
    }

    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBehind => "clock-behind",
            Self::HolderOnly => "holder-only",
            Self::ForgedStamps => "forged-stamps",
            Self::ForgedOwner => "forged-owner",
            Self::ClearedStamps => "cleared-stamps",
        }
    }

    fn test_name(self, group: &str, verb: Verb) -> String {
        format!("attacks::{group}::{}::{}", verb.slug(), self.slug())
    }

    /// The write itself, by `b`, on a lease that `a` holds.
    fn edit(self, lease: &Value, now: Timestamp) -> anyhow::Result<Edit> {
        let hour = SignedDuration::from_hours(1);
        let renewed = match self {
            Self::ClockAhead => now.checked_add(hour)?,
            Self::ClockBehind => now.checked_sub(hour)?,
            _ => now,
        };
        let edit = match self {
            Self::HolderOnly => Edit::spec("b", json!({"holderIdentity": "b"})),
            _ => Edit::spec("b", held("b", renewed, VALID_SECONDS, 1)),
        };
        let long_ago = || Value::from("2001-02-03T04:05:06Z");
        let mut entries = lease
            .pointer("/metadata/managedFields")
            .cloned()
            .context("no managedFields")?;
        let list = entries.as_array_mut().context("managedFields is no list")?;
        Ok(match self {
            Self::ForgedStamps => {
                for entry in list {
                    *entry.pointer_mut("/time").context("no time")? = long_ago();
                }
                edit.with_managed_fields(entries)
            }
            Self::ForgedOwner => {
                let mut extra = list.first().cloned().context("no entries")?;
                *extra.pointer_mut("/manager").context("no manager")? = "c".into();
                *extra.pointer_mut("/time").context("no time")? = long_ago();
                list.push(extra);
                edit.with_managed_fields(entries)
            }
            Self::ClearedStamps => edit.with_managed_fields(json!([{}])),
            _ => edit,
        })
    }
}

const LEASE: &str = "lock";

/// A held lease as client-go writes it.
pub(crate) fn held(holder: &str, at: Timestamp, seconds: i64, transitions: i64) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": format!("{at:.6}"),
        "renewTime": format!("{at:.6}"),
        "leaseTransitions": transitions,
    })
}

/// A lease that `a` holds, and the edit that is to be refused.
pub(crate) async fn victim(leases: &Leases, attack: Attack) -> anyhow::Result<(Value, Edit)> {
    let now = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    // Forged times must differ from the true ones, and honest ones too.
    let now = leases.api.after_second(now).await?;
    let edit = attack.edit(&lease, now)?;
    Ok((lease, edit))
}

/// Checks that a reply is a denial by this rule.
fn ensure_denied(reply: &Reply, rule: &str) -> anyhow::Result<()> {
    ensure!(
        reply.code == 403,
        "expected 403, got {} {}",
        reply.code,
        reply.message()
    );
    ensure!(reply.reason() == "Forbidden", "reason is {:?}", reply.reason());
    let message = reply.message();
    ensure!(
        message.contains("denied the request"),
        "not a webhook's denial: {message}"
    );
    ensure!(
        message.contains(&format!("{rule}: ")),
        "the message does not name {rule}: {message}"
    );
    Ok(())
}

/// The seconds that a denial says are left.
fn seconds_left(message: &str) -> anyhow::Result<i64> {
    let (_, rest) = message
        .split_once("free in ")
        .with_context(|| format!("no seconds left in: {message}"))?;
    let (seconds, _) = rest
        .split_once(" s")
        .with_context(|| format!("no seconds left in: {message}"))?;
    Ok(seconds.parse()?)
}

/// In mode enforce: as a dry run and in earnest.
pub(crate) async fn refused(
    world: &World,
    leases: &Leases,
    verb: Verb,
    attack: Attack,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let (before, edit) = victim(leases, attack).await?;
    for edit in [edit.clone().dry(), edit] {
        let reply = leases.edit(verb, LEASE, &edit).await?;
        ensure_denied(&reply, "takeover-before-expiry")?;
        if attack == Attack::ClearedStamps {
            ensure_denied(&reply, "stamp-tampered")?;
        }
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

    let denied = |record: &Value, dry_run: bool| {
        text(record, "/rule") == "takeover-before-expiry"
            && text(record, "/decision") == "denied"
            && record.pointer("/dryRun") == Some(&Value::Bool(dry_run))
    };
    let records = guard
        .audit_records(&leases.namespace, "the denial", |record| denied(record, false))
        .await?;
    ensure!(
        records.iter().any(|record| denied(record, true)),
        "the dry run's denial is not logged: {records:?}"
    );
    let takeovers = records
        .iter()
        .filter(|record| text(record, "/record") == "holderChange" && text(record, "/change") == "takeover");
    ensure!(
        takeovers.count() == 0,
        "a refused takeover is logged as a change: {records:?}"
    );
    // Once for the dry run, once in earnest.
    let told = annotated(world, leases, "denied: ").await?;
    ensure!(told == 2, "the API server's audit log tells of {told} denials");
    Ok(())
}

/// In mode audit: allowed and logged, as a dry run and in earnest.
pub(crate) async fn would_be_refused(
    world: &World,
    leases: &Leases,
    verb: Verb,
    attack: Attack,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let (before, edit) = victim(leases, attack).await?;
    leases.edit(verb, LEASE, &edit.clone().dry()).await?.accepted()?;
    ensure!(leases.get(LEASE).await? == before, "a dry run changed the lease");
    let stored = leases.edit(verb, LEASE, &edit).await?.accepted()?;
    ensure!(
        text(&stored, "/spec/holderIdentity") == "b",
        "b did not take over"
    );

    let takeover =
        |record: &Value| text(record, "/record") == "holderChange" && text(record, "/change") == "takeover";
    let records = guard
        .audit_records(&leases.namespace, "the takeover", takeover)
        .await?;
    for dry_run in [true, false] {
        let told = records.iter().any(|record| {
            text(record, "/rule") == "takeover-before-expiry"
                && text(record, "/decision") == "would be denied"
                && record.pointer("/dryRun") == Some(&Value::Bool(dry_run))
        });
        ensure!(
            told,
            "dry run {dry_run}: \"would be denied\" is not logged: {records:?}"
        );
    }
    ensure!(
        records.iter().filter(|record| takeover(record)).count() == 1,
        "not one change is logged: {records:?}"
    );
    let told = annotated(world, leases, "would be denied: ").await?;
    ensure!(
        told == 2,
        "the API server's audit log tells of {told} takeovers that would be denied"
    );
    Ok(())
}

/// How many writes in a namespace the API server's own audit log annotates with this decision on the takeover.
async fn annotated(world: &World, leases: &Leases, decision: &str) -> anyhow::Result<usize> {
    let webhook = &world.guard().await?.webhook;
    let annotation = format!("/annotations/{webhook}~1takeover-before-expiry");
    let audit = world.plane().await?.audit()?;
    let told = audit
        .lease_writes(&leases.namespace)
        .filter(|event| text(event, &annotation).starts_with(decision));
    Ok(told.count())
}

/// Tries to take over until it works: never before the lease has expired by the API server's stamps.
async fn takeover_after_expiry_passes(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("expiry-{}", verb.slug())).await?;
    let created = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", created, SHORT_SECONDS, 0))
        .await?
        .accepted()?;
    let renewed = stamp(&lease)?;
    let taken = crate::harness::until("the lease to expire", || async {
        let now = leases.api.now().await?;
        let reply = leases
            .edit(verb, LEASE, &Edit::spec("b", held("b", now, SHORT_SECONDS, 1)))
            .await?;
        if reply.code == 403 {
            ensure_denied(&reply, "takeover-before-expiry")?;
            let left = seconds_left(reply.message())?;
            ensure!(
                (1..=SHORT_SECONDS).contains(&left),
                "{left} s left of {SHORT_SECONDS}"
            );
            tokio::time::sleep(POLL).await;
            return Ok(None);
        }
        reply.accepted().map(Some)
    })
    .await?;
    let denials = world
        .plane()
        .await?
        .audit()?
        .refused_lease_writes(&leases.namespace)
        .len();
    let waited = stamp(&taken)?.duration_since(renewed).as_secs();
    ensure!(denials > 0, "no attempt was refused");
    ensure!(
        waited >= SHORT_SECONDS - SLACK_SECONDS,
        "taken over after {waited} s of {SHORT_SECONDS}"
    );
    ensure!(text(&taken, "/spec/holderIdentity") == "b", "b did not take over");
    Ok(())
}

/// The stamp of the entry that owns the holder.
fn stamp(lease: &Value) -> anyhow::Result<Timestamp> {
    let entries = lease
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .context("no managedFields")?;
    let owner = entries
        .iter()
        .find(|entry| entry.pointer("/fieldsV1/f:spec/f:holderIdentity").is_some())
        .context("nobody owns the holder")?;
    Ok(text(owner, "/time").parse()?)
}

/// A lease that was held three times, and is free.
async fn released(leases: &Leases) -> anyhow::Result<Timestamp> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, 15, 3))
        .await?
        .accepted()?;
    let release = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": format!("{now:.6}")});
    leases
        .edit(Verb::Put, LEASE, &Edit::spec("a", release))
        .await?
        .accepted()?;
    Ok(now)
}

async fn wrong_count_is_refused(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("count-{}", verb.slug())).await?;
    let now = released(&leases).await?;
    for wrong in [0, 2, 3, 5] {
        let reply = leases
            .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, wrong)))
            .await?;
        ensure_denied(&reply, "transition-not-counted").with_context(|| format!("3 -> {wrong}"))?;
    }
    leases
        .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, 4)))
        .await?
        .accepted()?;
    Ok(())
}

async fn overflow_is_refused(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("overflow-{}", verb.slug())).await?;
    let now = released(&leases).await?;
    let edit = Edit::spec("b", held("b", now, 15, i64::from(i32::MAX)));
    ensure_denied(&leases.edit(verb, LEASE, &edit).await?, "transition-overflow")?;
    // By the holder itself just as well: it bricks the lock all the same.
    leases
        .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, 4)))
        .await?
        .accepted()?;
    let edit = Edit::spec("b", json!({"leaseTransitions": i32::MAX}));
    ensure_denied(&leases.edit(verb, LEASE, &edit).await?, "transition-overflow")
}

/// Younger than its own duration, so that its age alone shows that a takeover is early.
async fn young_blind_lease(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("young-blind").await?;
    let now = leases.api.now().await?;
    // Empty at first, and filled by a PUT: no entry comes about, then or later.
    leases.create(LEASE, "a", json!({})).await?.accepted()?;
    let fill = Edit::spec("a", held("a", now, VALID_SECONDS, 0));
    let lease = leases.edit(Verb::Put, LEASE, &fill).await?.accepted()?;
    ensure!(
        lease.pointer("/metadata/managedFields").is_none(),
        "the lease is not blind: {lease}"
    );
    let takeover = Edit::spec("b", held("b", now, VALID_SECONDS, 1));
    ensure_denied(
        &leases.edit(Verb::Put, LEASE, &takeover).await?,
        "takeover-before-expiry",
    )
}

async fn duration_out_of_bounds_is_refused(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("duration").await?;
    let now = leases.api.now().await?;
    for (what, seconds) in [
        ("under the minimum", Some(4)),
        ("over the maximum", Some(3601)),
        ("missing", None),
    ] {
        let mut spec = held("a", now, 0, 0);
        match (seconds, spec.as_object_mut()) {
            (Some(seconds), Some(spec)) => spec.insert("leaseDurationSeconds".to_owned(), seconds.into()),
            (None, Some(spec)) => spec.remove("leaseDurationSeconds"),
            (_, None) => None,
        };
        let reply = leases.create(LEASE, "a", spec).await?;
        ensure_denied(&reply, "duration-out-of-bounds").with_context(|| what.to_owned())?;
    }
    leases
        .create(LEASE, "a", held("a", now, 3600, 0))
        .await?
        .accepted()?;
    for verb in Verb::ALL {
        let raise = Edit::spec("a", json!({"leaseDurationSeconds": 3601}));
        ensure_denied(&leases.edit(verb, LEASE, &raise).await?, "duration-out-of-bounds")?;
    }
    // The release of fabric8 since 7.5: the holder stays, and has a second left.
    let release = Edit::spec(
        "a",
        json!({"leaseDurationSeconds": 1, "renewTime": format!("{now:.6}")}),
    );
    leases.edit(Verb::MergePatch, LEASE, &release).await?.accepted()?;
    Ok(())
}

async fn stamp_tampering_is_refused(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("tampering").await?;
    let now = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let entries = lease
        .pointer("/metadata/managedFields")
        .cloned()
        .context("no managedFields")?;
    let with_time = |time: &str| -> anyhow::Result<Value> {
        let mut entries = entries.clone();
        *entries.pointer_mut("/0/time").context("no time")? = time.into();
        Ok(entries)
    };
    let mut second_owner = with_time("2099-01-01T00:00:00Z")?;
    if let (Some(list), Some(first)) = (second_owner.as_array_mut(), entries.get(0)) {
        list.push(first.clone());
        *list
            .get_mut(0)
            .and_then(|entry| entry.pointer_mut("/manager"))
            .context("no manager")? = "c".into();
    }
    let forgeries = [
        ("cleared", json!([{}])),
        ("emptied", json!([])),
        ("set back", with_time("2001-02-03T04:05:06Z")?),
        ("set ahead", with_time("2099-01-01T00:00:00Z")?),
        ("owned twice", second_owner),
    ];
    let before = leases.get(LEASE).await?;
    for verb in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch] {
        for (what, forgery) in &forgeries {
            let edit = Edit::labels("b", json!({"app": what.replace(' ', "-")}))
                .with_managed_fields(forgery.clone());
            let reply = leases.edit(verb, LEASE, &edit).await?;
            ensure_denied(&reply, "stamp-tampered").with_context(|| format!("{what} by {verb:?}"))?;
        }
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    // A label alone is nobody's business, whoever sets it.
    let labels = ["a", "b"].map(|manager| {
        let leases = &leases;
        async move {
            leases
                .edit(
                    Verb::MergePatch,
                    LEASE,
                    &Edit::labels(manager, json!({manager: "yes"})),
                )
                .await?
                .accepted()
        }
    });
    try_join_all(labels).await?;
    Ok(())
}

/// An elector that never counts is let be, and its operator told.
async fn untracked_elector_is_warned(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("untracked").await?;
    let now = leases.api.now().await?;
    let mut spec = held("a", now, 15, 0);
    let untracked = |spec: &mut Value| spec.as_object_mut().map(|spec| spec.remove("leaseTransitions"));
    untracked(&mut spec);
    leases.create(LEASE, "a", spec).await?.accepted()?;
    let release = Edit::spec("a", json!({"holderIdentity": null}));
    leases.edit(Verb::MergePatch, LEASE, &release).await?.accepted()?;
    let mut spec = held("b", now, 15, 0);
    untracked(&mut spec);
    let reply = leases.edit(Verb::Put, LEASE, &Edit::spec("b", spec)).await?;
    let warned = reply
        .warnings
        .iter()
        .any(|warning| warning.contains("transition-not-counted"));
    ensure!(warned, "no warning: {:?}", reply.warnings);
    reply.accepted()?;
    Ok(())
}
