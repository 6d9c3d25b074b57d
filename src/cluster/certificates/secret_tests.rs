//! What a Secret is read as: whole, and broken in every part.

use std::time::Duration;

use super::*;
use crate::{
    cluster::certificates::issue,
    server::pem::tests::{ensure_nothing_is_quoted, mangled},
};

const LIFE: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn names() -> Vec<String> {
    vec!["guard.system.svc".to_owned(), "guard.system".to_owned()]
}

fn good<T: std::fmt::Debug>(part: Part<T>) -> T {
    match part {
        Part::Good(good) => good,
        other => panic!("not good: {other:?}"),
    }
}

/// A CA with nothing beside it.
fn with_authority() -> StoredSecret {
    let authority = issue::authority(now(), LIFE).unwrap();
    StoredSecret::new().with_authority(&authority, &[])
}

/// Issues a leaf of the Secret's CA into it.
fn with_leaf(secret: StoredSecret) -> StoredSecret {
    let authority = good(secret.contents(&names()).authority);
    let key = secret.authority_key().unwrap();
    let leaf = issue::leaf(&authority, key, &names(), now(), LIFE).unwrap();
    secret.with_leaf(&leaf)
}

/// As it comes back from an API server.
fn stored(secret: &StoredSecret) -> StoredSecret {
    StoredSecret::from_json(&secret.to_json("system", "certificates")).unwrap()
}

#[test]
fn what_is_issued_is_read_back_as_it_was_meant() {
    let secret = stored(&with_leaf(with_authority()));
    let contents = secret.contents(&names());
    let authority = good(contents.authority);
    let leaf = good(contents.leaf);
    assert_eq!(leaf.issuer.as_ref(), Some(&authority.der));
    assert!(leaf.names_fit);
    assert_eq!(leaf.validity.not_after, now() + LIFE);
    assert_eq!(authority.validity.not_after, now() + LIFE);
    assert!(leaf.validity.not_before < now());
    assert!(secret.certificate().is_some());
    assert_eq!(leaf.serial.len(), 32, "{}", leaf.serial);
    assert!(!good(secret.contents(&["other".to_owned()]).leaf).names_fit);
}

#[test]
fn no_two_are_alike() {
    let one = with_leaf(with_authority());
    let other = with_leaf(one.clone());
    let serial = |secret: &StoredSecret| good(secret.contents(&names()).leaf).serial;
    assert_ne!(serial(&one), serial(&other));
    let authority = |secret: StoredSecret| good(secret.contents(&names()).authority).der;
    assert_ne!(authority(with_authority()), authority(with_authority()));
}

#[test]
fn a_leaf_does_not_outlive_its_ca() {
    let authority = issue::authority(now(), Duration::from_secs(60)).unwrap();
    let secret = with_leaf(StoredSecret::new().with_authority(&authority, &[]));
    let leaf = good(secret.contents(&names()).leaf);
    assert_eq!(leaf.validity.not_after, now() + Duration::from_secs(60));
}

#[test]
fn a_leaf_stays_while_its_ca_retires() {
    let old = with_leaf(with_authority());
    let old_authority = good(old.contents(&names()).authority);
    let new = issue::authority(now(), LIFE).unwrap();
    let retiring = std::slice::from_ref(&old_authority);
    let rotating = stored(&old.with_authority(&new, retiring));
    let contents = rotating.contents(&names());
    assert_eq!(contents.retiring, retiring);
    assert_eq!(good(contents.leaf).issuer.as_ref(), Some(&old_authority.der));
    assert_ne!(good(contents.authority), old_authority);

    // Once nothing trusts its CA any more, it is nobody's.
    let retired = rotating.with_retiring(&[]).contents(&names());
    assert_eq!(retired.retiring, []);
    assert_eq!(good(retired.leaf).issuer, None);
}

#[test]
fn every_part_that_is_missing_or_garbled_is_named() {
    let whole = with_leaf(with_authority());
    let stranger = with_leaf(with_authority());
    type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, ByteString>);
    let take = |key: &str| stranger.0.data.as_ref().unwrap()[key].clone();
    let cases: [(Change<'_>, &str); 12] = [
        (&|data| drop(data.remove(AUTHORITY)), "ca.crt is missing"),
        (&|data| drop(data.remove(AUTHORITY_KEY)), "ca.key is missing"),
        (
            &|data| drop(data.insert(AUTHORITY.to_owned(), ByteString(b"x".to_vec()))),
            "ca.crt is not one CA certificate",
        ),
        (
            &|data| drop(data.insert(AUTHORITY.to_owned(), data[LEAF].clone())),
            "ca.crt is not one CA certificate",
        ),
        (
            &|data| {
                let both = [data[AUTHORITY].0.clone(), take(AUTHORITY).0].concat();
                drop(data.insert(AUTHORITY.to_owned(), ByteString(both)));
            },
            "ca.crt is not one CA certificate",
        ),
        (
            &|data| drop(data.insert(AUTHORITY_KEY.to_owned(), ByteString(vec![0xff]))),
            "ca.key is not a private key",
        ),
        (
            &|data| drop(data.insert(AUTHORITY_KEY.to_owned(), take(AUTHORITY_KEY))),
            "ca.key is not the key of ca.crt",
        ),
        (&|data| drop(data.remove(LEAF)), "tls.crt is missing"),
        (&|data| drop(data.remove(LEAF_KEY)), "tls.key is missing"),
        (
            &|data| drop(data.insert(LEAF.to_owned(), ByteString(b"x".to_vec()))),
            "the certificate holds no certificate",
        ),
        (
            &|data| drop(data.insert(LEAF_KEY.to_owned(), ByteString(b"x".to_vec()))),
            "the private key holds no private key",
        ),
        (
            &|data| drop(data.insert(LEAF_KEY.to_owned(), take(LEAF_KEY))),
            "the private key is not the certificate's",
        ),
    ];
    for (change, said) in cases {
        let mut secret = whole.clone();
        change(secret.0.data.as_mut().unwrap());
        let contents = secret.contents(&names());
        let why = match (contents.authority, contents.leaf) {
            (Part::Broken(why), _) | (_, Part::Broken(why)) => why,
            parts => panic!("{said}: {parts:?}"),
        };
        assert_eq!(why, said);
    }
    let empty = StoredSecret::new().contents(&names());
    assert_eq!((empty.authority, empty.leaf), (Part::Absent, Part::Absent));
}

#[test]
fn reports_are_kept_while_they_mean_something() {
    let report = |serial: &str, seconds: u64| Report {
        serial: serial.to_owned(),
        not_after: now() + Duration::from_secs(seconds),
    };
    let secret = with_authority()
        .with_report("a", Some(report("1", 100)), now())
        .with_report("b", Some(report("1", 10)), now());
    assert_eq!(stored(&secret).contents(&names()).reports.len(), 2);
    let later = now() + Duration::from_secs(10);
    let secret = secret.with_report("a", Some(report("2", 200)), later);
    let expected = BTreeMap::from([("a".to_owned(), report("2", 200))]);
    assert_eq!(stored(&secret).contents(&names()).reports, expected);
    let gone = secret.with_report("a", None, later);
    assert_eq!(gone.contents(&names()).reports, BTreeMap::new());

    // Somebody else's writing is nobody's report.
    let mut garbled = with_authority();
    garbled.annotate(REPORTS, Some("[1]".to_owned()));
    assert_eq!(garbled.contents(&names()).reports, BTreeMap::new());
}

#[test]
fn reports_stay_few_enough_for_an_annotation_however_many_pods_were_killed() {
    let report = |number: u64| Report {
        serial: format!("{number:032x}"),
        not_after: now() + Duration::from_secs(number),
    };
    // The longest name that there is, and the own report the first to expire.
    let name = |number: u64| format!("{number:0>253}");
    let mut secret = with_authority();
    for number in 2..=250 {
        secret = secret.with_report(&name(number), Some(report(number)), now());
    }
    secret = secret.with_report(&name(1), Some(report(1)), now());
    let kept: Vec<_> = secret.contents(&names()).reports.into_keys().collect();
    let expected: Vec<_> = std::iter::once(1).chain(52..=250).map(name).collect();
    assert_eq!(kept, expected);
    assert!(secret.annotation(REPORTS).unwrap().len() < 128 << 10);
}

#[test]
fn a_request_goes_with_what_was_asked_for() {
    let asking = |kind: &str| {
        let mut secret = with_leaf(with_authority());
        secret.annotate(REQUEST, Some(kind.to_owned()));
        secret
    };
    let request = |secret: &StoredSecret| secret.contents(&names()).request;
    assert_eq!(request(&asking("ca")), Some(Request::Authority));
    assert_eq!(request(&asking("leaf")), Some(Request::Leaf));
    assert_eq!(request(&asking("everything")), None);
    assert_eq!(asking("everything").request(), Err(UnknownRequest));
    assert_eq!(with_authority().request(), Ok(None));
    assert_eq!(request(&with_leaf(asking("leaf"))), None);
    assert_eq!(
        request(&with_leaf(asking("ca"))),
        Some(Request::Authority),
        "it waits on"
    );
    let authority = issue::authority(now(), LIFE).unwrap();
    assert_eq!(request(&asking("ca").with_authority(&authority, &[])), None);
}

#[test]
fn a_bundle_is_read_for_its_cas_and_nothing_else_passes_unnoticed() {
    let one = good(with_authority().contents(&names()).authority);
    let two = good(with_authority().contents(&names()).authority);
    let pem = bundle([&one, &two]);
    assert_eq!(authorities(pem.as_bytes()), (vec![one.clone(), two], true));
    let leaf = with_leaf(with_authority());
    let mixed = [bundle([&one]).as_bytes(), leaf.data(LEAF).unwrap()].concat();
    assert_eq!(authorities(&mixed), (vec![one], false));
    assert_eq!(authorities(b"no PEM"), (Vec::new(), false));
}

#[test]
fn no_key_is_ever_printed() {
    let authority = issue::authority(now(), LIFE).unwrap();
    let secret = with_leaf(StoredSecret::new().with_authority(&authority, &[]));
    let printed = format!(
        "{authority:?} {secret:?} {:?} {:?} {:?}",
        secret.contents(&names()),
        secret.authority_key(),
        secret.certificate(),
    );
    for key in [AUTHORITY_KEY, LEAF_KEY] {
        let ByteString(pem) = &secret.0.data.as_ref().unwrap()[key];
        let pem = std::str::from_utf8(pem).unwrap();
        let line = pem.lines().nth(1).unwrap();
        assert!(!printed.contains(line), "{key}: {printed}");
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let bytes = format!("{:?}", der.secret_pkcs8_der());
        assert!(
            !printed.contains(bytes.trim_matches(['[', ']'])),
            "{key}: {printed}"
        );
    }
    assert!(!printed.contains("PRIVATE KEY"), "{printed}");
}

#[test]
fn no_part_that_lost_its_line_breaks_is_quoted() {
    let whole = with_leaf(with_authority());
    for key in [AUTHORITY, AUTHORITY_KEY, LEAF, LEAF_KEY] {
        let pem = String::from_utf8(whole.data(key).unwrap().to_vec()).unwrap();
        for mangled in mangled(&pem) {
            let mut secret = whole.clone();
            secret.put(key, mangled.into_bytes());
            let contents = secret.contents(&names());
            // What reads the CA's key needs no line breaks.
            let is_read = key == AUTHORITY_KEY;
            let parts_are_good = matches!(
                (&contents.authority, &contents.leaf),
                (Part::Good(_), Part::Good(_))
            );
            assert_eq!(parts_are_good, is_read, "{key}: {contents:?}");
            ensure_nothing_is_quoted(&format!("{contents:?}"), &pem);
        }
    }
}
