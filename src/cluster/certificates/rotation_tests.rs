//! Each state that can be met, and what comes next.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;

use super::*;

const DAY: u64 = 24 * 3600;

pub(super) const LIVES: Lives = Lives {
    authority: Duration::from_secs(365 * DAY),
    authority_renew_before: Duration::from_secs(90 * DAY),
    leaf: Duration::from_secs(30 * DAY),
    leaf_renew_before: Duration::from_secs(10 * DAY),
    publish_wait: Duration::from_secs(60),
};

pub(super) fn day(day: i64) -> Timestamp {
    Timestamp::from_second(day * 24 * 3600).unwrap()
}

pub(super) const TODAY: i64 = 1000;

fn mk_der(number: u8) -> CertificateDer<'static> {
    CertificateDer::from(vec![number])
}

/// A CA by its number, issued so many days ago.
pub(super) fn mk_authority(number: u8, age: i64) -> AuthorityFacts {
    AuthorityFacts {
        der: mk_der(number),
        validity: Validity {
            not_before: day(TODAY - age - 1),
            not_after: day(TODAY - age + 365),
        },
    }
}

pub(super) fn mk_leaf(issuer: u8, age: i64) -> LeafFacts {
    LeafFacts {
        serial: "current".to_owned(),
        issuer: Some(mk_der(issuer)),
        validity: Validity {
            not_before: day(TODAY - age - 1),
            not_after: day(TODAY - age + 30),
        },
        names_fit: true,
    }
}

fn mk_report(serial: &str, valid_for: i64) -> Report {
    Report {
        serial: serial.to_owned(),
        not_after: day(TODAY + valid_for),
    }
}

pub(super) fn mk_bundle(authorities: &[AuthorityFacts]) -> WebhookBundle {
    WebhookBundle {
        authorities: authorities.to_vec(),
        broken: false,
    }
}

/// CA 1 and its leaf, ten days old, served by two replicas and published by two webhooks, for a long time.
fn mk_steady() -> Observed {
    let authority = mk_authority(1, 10);
    Observed {
        webhooks: Some(vec![mk_bundle(std::slice::from_ref(&authority)); 2]),
        secret: Some(Contents {
            authority: Part::Good(authority),
            retiring: Vec::new(),
            leaf: Part::Good(mk_leaf(1, 10)),
            reports: BTreeMap::from([
                ("a".to_owned(), mk_report("current", 20)),
                ("b".to_owned(), mk_report("current", 20)),
            ]),
            request: None,
        }),
        published_for: Duration::from_secs(3600),
        issued_for: Duration::from_secs(3600),
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = mk_steady();
    change(&mut observed);
    observed
}

fn with_contents(change: impl FnOnce(&mut Contents)) -> Observed {
    with(|observed| change(observed.secret.as_mut().unwrap()))
}

/// CA 2 is made, and both are published; the leaf is CA 1's.
fn mk_rotating() -> Observed {
    with(|observed| {
        let (old, new) = (mk_authority(1, 10), mk_authority(2, 0));
        observed.webhooks = Some(vec![mk_bundle(&[new.clone(), old.clone()]); 2]);
        let contents = observed.secret.as_mut().unwrap();
        contents.authority = Part::Good(new);
        contents.retiring = vec![old];
    })
}

/// The same, and the leaf is CA 2's, served by both replicas.
fn mk_rotated() -> Observed {
    let mut observed = mk_rotating();
    observed.secret.as_mut().unwrap().leaf = Part::Good(mk_leaf(2, 0));
    observed
}

#[track_caller]
fn check(observed: &Observed, expected: Step) {
    assert_eq!(next_step(observed, day(TODAY), &LIVES), expected, "{observed:#?}");
}

fn new_authority(reason: Reason, retiring: &[AuthorityFacts]) -> Step {
    Step::NewAuthority {
        reason,
        retiring: retiring.to_vec(),
    }
}

fn issue(reason: Reason) -> Step {
    Step::IssueLeaf { reason }
}

fn broken() -> String {
    "is broken".to_owned()
}

#[test]
fn nothing_is_done_until_the_leaf_is_due() {
    check(
        &mk_steady(),
        Step::Idle {
            until: day(TODAY + 10),
        },
    );
    // Younger leaf, older CA: whichever comes first.
    let old = mk_authority(1, 270);
    let observed = with(|observed| {
        observed.webhooks = Some(vec![mk_bundle(std::slice::from_ref(&old))]);
        observed.secret.as_mut().unwrap().authority = Part::Good(old.clone());
    });
    check(
        &observed,
        Step::Idle {
            until: day(TODAY + 5),
        },
    );
    check(
        &with(|observed| observed.webhooks = None),
        Step::Idle {
            until: day(TODAY + 10),
        },
    );
}

#[test]
fn an_installation_begins_with_a_ca_and_waits_for_nobody() {
    let mut observed = with(|observed| {
        observed.secret = None;
        observed.webhooks = Some(vec![WebhookBundle::default(); 2]);
        observed.published_for = Duration::ZERO;
        observed.issued_for = Duration::ZERO;
    });
    check(&observed, new_authority(Reason::Absent, &[]));
    observed.secret = Some(Contents {
        authority: Part::Good(mk_authority(1, 0)),
        retiring: Vec::new(),
        leaf: Part::Absent,
        reports: BTreeMap::new(),
        request: None,
    });
    check(&observed, Step::Publish { repair: false });
    observed.webhooks = Some(vec![mk_bundle(&[mk_authority(1, 0)]); 2]);
    check(&observed, issue(Reason::Absent));
    observed.secret.as_mut().unwrap().leaf = Part::Good(mk_leaf(1, 0));
    check(
        &observed,
        Step::Idle {
            until: day(TODAY + 20),
        },
    );
}

#[test]
fn a_rotation_of_the_ca_goes_through_its_steps_in_order() {
    // Due, or asked for: the old one is trusted still.
    let old = mk_authority(1, 275);
    let due = with(|observed| {
        observed.webhooks = Some(vec![mk_bundle(std::slice::from_ref(&old)); 2]);
        observed.secret.as_mut().unwrap().authority = Part::Good(old.clone());
    });
    check(
        &due,
        new_authority(Reason::ExpiresSoon, std::slice::from_ref(&old)),
    );
    let asked = with_contents(|contents| contents.request = Some(Request::Authority));
    check(&asked, new_authority(Reason::Requested, &[mk_authority(1, 10)]));

    let mut observed = mk_rotating();
    let both = observed
        .webhooks
        .replace(vec![mk_bundle(&[mk_authority(1, 10)]); 2]);
    check(&observed, Step::Publish { repair: false });
    // One webhook is not enough.
    observed.webhooks.as_mut().unwrap()[0] = both.as_ref().unwrap()[0].clone();
    check(&observed, Step::Publish { repair: false });

    observed.webhooks = both;
    observed.published_for = Duration::from_secs(59);
    let remaining = Duration::from_secs(1);
    check(&observed, Step::WaitForApiServers { remaining });
    observed.published_for = Duration::from_secs(60);
    check(&observed, issue(Reason::OtherAuthority));

    let mut observed = mk_rotated();
    let contents = observed.secret.as_mut().unwrap();
    contents.reports.insert("b".to_owned(), mk_report("before", 20));
    let behind = vec!["b".to_owned()];
    check(&observed, Step::WaitForReplicas { behind });

    let mut observed = mk_rotated();
    observed.issued_for = Duration::from_secs(59);
    check(&observed, Step::WaitForReplicas { behind: Vec::new() });
    observed.issued_for = Duration::from_secs(60);
    check(&observed, Step::Retire { keep: Vec::new() });

    observed.secret.as_mut().unwrap().retiring.clear();
    check(&observed, Step::Publish { repair: false });
    observed.webhooks = Some(vec![mk_bundle(&[mk_authority(2, 0)]); 2]);
    check(
        &observed,
        Step::Idle {
            until: day(TODAY + 20),
        },
    );
}

#[test]
fn an_old_ca_stays_while_anybody_may_serve_by_it() {
    type Reports<'a> = &'a [(&'a str, Report)];
    let cases: [(&str, Reports<'_>, bool); 5] = [
        ("nobody reported", &[], false),
        ("all serve the new leaf", &[("a", mk_report("current", 20))], true),
        (
            "one serves the old leaf",
            &[("a", mk_report("before", 20))],
            false,
        ),
        (
            "one does, another does not",
            &[("a", mk_report("current", 20)), ("b", mk_report("before", 1))],
            false,
        ),
        (
            "one was killed, and its leaf has expired",
            &[("a", mk_report("current", 20)), ("b", mk_report("before", 0))],
            true,
        ),
    ];
    for (name, reports, retires) in cases {
        let mut observed = mk_rotated();
        let reports = reports
            .iter()
            .map(|(replica, report)| ((*replica).to_owned(), report.clone()));
        observed.secret.as_mut().unwrap().reports = reports.collect();
        let step = next_step(&observed, day(TODAY), &LIVES);
        assert_eq!(matches!(step, Step::Retire { .. }), retires, "{name}: {step:?}");
    }
    // Expired, it stays for nobody.
    let mut observed = mk_rotated();
    observed.secret.as_mut().unwrap().retiring = vec![mk_authority(1, 365), mk_authority(3, 300)];
    let keep = vec![mk_authority(3, 300)];
    check(&observed, Step::Retire { keep });
}

#[test]
fn a_leaf_is_renewed_by_the_ca_that_is_there_without_a_wait() {
    let leaf = |leaf| with_contents(|contents| contents.leaf = Part::Good(leaf));
    check(&leaf(mk_leaf(1, 20)), issue(Reason::ExpiresSoon));
    // A machine that slept past the end.
    check(&leaf(mk_leaf(1, 40)), issue(Reason::NotValid));
    // A writer's clock was ahead.
    check(&leaf(mk_leaf(1, -2)), issue(Reason::NotValid));
    let other_names = LeafFacts {
        names_fit: false,
        ..mk_leaf(1, 10)
    };
    check(&leaf(other_names), issue(Reason::OtherNames));
    check(
        &with_contents(|contents| contents.leaf = Part::Broken(broken())),
        issue(Reason::Broken(broken())),
    );
    check(
        &with_contents(|contents| contents.leaf = Part::Absent),
        issue(Reason::Absent),
    );
    check(
        &with_contents(|contents| contents.request = Some(Request::Leaf)),
        issue(Reason::Requested),
    );
}

#[test]
fn whoever_slept_past_the_end_of_everything_rotates_at_once() {
    let mut observed = with(|observed| observed.published_for = Duration::ZERO);
    let old = mk_authority(1, 400);
    observed.webhooks = Some(vec![mk_bundle(std::slice::from_ref(&old)); 2]);
    let contents = observed.secret.as_mut().unwrap();
    contents.authority = Part::Good(old);
    contents.leaf = Part::Good(mk_leaf(1, 300));
    check(&observed, new_authority(Reason::NotValid, &[]));
    observed.secret.as_mut().unwrap().authority = Part::Good(mk_authority(2, 0));
    check(&observed, Step::Publish { repair: false });
    observed.webhooks = Some(vec![mk_bundle(&[mk_authority(2, 0)]); 2]);
    check(&observed, issue(Reason::NotValid));
}

#[test]
fn in_the_last_days_of_a_ca_a_new_one_is_made_and_not_leaf_after_leaf() {
    let waking = |authority_left: i64, leaf_left: i64| {
        let old = mk_authority(1, 365 - authority_left);
        let observed = with(|observed| {
            observed.webhooks = Some(vec![mk_bundle(std::slice::from_ref(&old)); 2]);
            let contents = observed.secret.as_mut().unwrap();
            contents.authority = Part::Good(old.clone());
            contents.leaf = Part::Good(mk_leaf(1, 30 - leaf_left));
        });
        (observed, old)
    };
    // The leaf ends with its CA, or would be issued to do so: no leaf of this CA is better.
    for left in 1..=10 {
        let (observed, old) = waking(left, left);
        check(&observed, new_authority(Reason::ExpiresSoon, &[old]));
    }
    // One that ends before its CA might not last until the API servers know the next.
    let (observed, _) = waking(5, 3);
    check(&observed, issue(Reason::ExpiresSoon));
    // Nor does one that has ended wait for it.
    let (observed, _) = waking(5, 0);
    check(&observed, issue(Reason::NotValid));
}

#[test]
fn what_is_broken_is_made_anew_beside_what_is_trusted() {
    let published = [mk_authority(1, 10)];
    // The Secret is gone, or of no use: replicas serve on from memory, by what caBundle has.
    check(
        &with(|observed| observed.secret = None),
        new_authority(Reason::Absent, &published),
    );
    check(
        &with_contents(|contents| contents.authority = Part::Broken(broken())),
        new_authority(Reason::Broken(broken()), &published),
    );
    check(
        &with_contents(|contents| contents.authority = Part::Absent),
        new_authority(Reason::Absent, &published),
    );
    // Then nobody is cut off by a leaf of a CA that was only just published.
    let mut observed = mk_rotating();
    let contents = observed.secret.as_mut().unwrap();
    contents.leaf = Part::Absent;
    contents.reports.clear();
    observed.published_for = Duration::ZERO;
    let remaining = LIVES.publish_wait;
    check(&observed, Step::WaitForApiServers { remaining });
}

#[test]
fn a_ca_that_a_replica_may_serve_by_stays_where_the_secret_has_lost_it() {
    let old = mk_authority(1, 10);
    let keep = |repair| Step::KeepTrusted {
        repair,
        retiring: vec![old.clone()],
    };
    // retiring-ca.crt is lost before the leaf is issued: nothing in the Secret issued the leaf.
    let mut lost = mk_rotating();
    let contents = lost.secret.as_mut().unwrap();
    contents.retiring.clear();
    let Part::Good(leaf) = &mut contents.leaf else {
        panic!("no leaf");
    };
    leaf.issuer = None;
    check(&lost, keep(true));

    // It is lost later, while a replica is behind, or may be.
    let lost = |change: fn(&mut Observed)| {
        let mut observed = mk_rotated();
        observed.secret.as_mut().unwrap().retiring.clear();
        change(&mut observed);
        observed
    };
    let behind = lost(|observed| {
        let contents = observed.secret.as_mut().unwrap();
        contents.reports.insert("b".to_owned(), mk_report("before", 20));
    });
    check(&behind, keep(false));
    check(
        &lost(|observed| observed.issued_for = Duration::ZERO),
        keep(false),
    );
    check(
        &lost(|observed| observed.secret.as_mut().unwrap().reports.clear()),
        keep(false),
    );
    // All serve the new one: nobody needs it.
    check(&lost(|_| {}), Step::Publish { repair: false });

    // An older Secret is restored, with its reports: what is served is what caBundle has.
    let served = mk_authority(2, 0);
    let restored = with(|observed| {
        observed.webhooks = Some(vec![mk_bundle(std::slice::from_ref(&served)); 2]);
        observed.issued_for = Duration::ZERO;
    });
    let retiring = vec![served];
    check(
        &restored,
        Step::KeepTrusted {
            repair: false,
            retiring: retiring.clone(),
        },
    );
    let mut restored = restored;
    restored.secret.as_mut().unwrap().retiring = retiring;
    check(&restored, Step::Publish { repair: true });
}

#[test]
fn a_ca_bundle_that_is_not_as_it_should_be_is_patched_and_said_to_be_repaired() {
    let stranger = mk_authority(9, 0);
    let own = mk_authority(1, 10);
    let cases = [
        ("lost", WebhookBundle::default(), true),
        ("replaced", mk_bundle(std::slice::from_ref(&stranger)), true),
        ("widened", mk_bundle(&[own.clone(), stranger]), false),
        (
            "garbled",
            WebhookBundle {
                authorities: vec![own],
                broken: true,
            },
            true,
        ),
    ];
    for (name, bundle, repair) in cases {
        let observed = with(|observed| observed.webhooks.as_mut().unwrap()[1] = bundle);
        assert_eq!(
            next_step(&observed, day(TODAY), &LIVES),
            Step::Publish { repair },
            "{name}"
        );
    }
}

#[test]
fn planned_rotations_do_not_pile_up() {
    let observed = |request| {
        let mut observed = mk_rotated();
        let contents = observed.secret.as_mut().unwrap();
        contents.request = request;
        contents.retiring = (10..18).map(|number| mk_authority(number, 10)).collect();
        contents.reports.insert("b".to_owned(), mk_report("before", 20));
        let trusted: Vec<_> = std::iter::once(mk_authority(2, 0))
            .chain(contents.retiring.clone())
            .collect();
        observed.webhooks = Some(vec![mk_bundle(&trusted)]);
        observed
    };
    let behind = vec!["b".to_owned()];
    check(
        &observed(Some(Request::Authority)),
        Step::WaitForReplicas { behind },
    );
}
