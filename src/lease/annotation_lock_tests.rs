use super::*;
use crate::lease::Change;

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn record() -> Record<'static> {
    Record {
        holder: Some("a".into()),
        duration_seconds: Some(15),
        acquire_time: at("2026-11-20T09:30:00Z"),
        renew_time: at("2026-11-20T09:31:00Z"),
        transitions: Some(3),
        ..Record::default()
    }
}

#[test]
fn every_dialect_reads_as_the_same_record() {
    let micros = |record: Record<'static>| Record {
        acquire_time: at("2026-11-20T09:30:00.123456Z"),
        renew_time: at("2026-11-20T09:31:00.123456Z"),
        ..record
    };
    let cases = [
        // client-go v0.20, then v0.31 with the fields of coordinated leader election; Java's and C#'s are alike.
        (
            r#"{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leaderTransitions":3}"#,
            record(),
        ),
        (
            r#"{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leaderTransitions":3,"strategy":"","preferredHolder":""}"#,
            record(),
        ),
        // client-go lets go, and creates with Go's zero time.
        (
            r#"{"holderIdentity":"","leaseDurationSeconds":1,"acquireTime":null,"renewTime":null,"leaderTransitions":3}"#,
            Record {
                transitions: Some(3),
                duration_seconds: Some(1),
                ..Record::default()
            },
        ),
        // fabric8, held and let go.
        (
            r#"{"holderIdentity":"a","leaseDuration":15.000000000,"acquireTime":"2026-11-20T09:30:00.123456Z","renewTime":"2026-11-20T09:31:00.123456Z","leaderTransitions":3}"#,
            micros(record()),
        ),
        (
            r#"{"leaseDuration":1.000000000,"acquireTime":"2026-11-20T09:30:00.123456Z","renewTime":"2026-11-20T09:31:00.123456Z","leaderTransitions":3}"#,
            Record {
                holder: None,
                duration_seconds: Some(1),
                ..micros(record())
            },
        ),
        // Python: json.dumps, a string for a number, local times, no transitions.
        (
            r#"{"holderIdentity": "a", "leaseDurationSeconds": "15", "acquireTime": "2026-11-20 09:30:00.123456", "renewTime": "2026-11-20 09:31:00.123456"}"#,
            Record {
                transitions: None,
                zoneless: true,
                ..micros(record())
            },
        ),
        // C#: an offset in place of the Z.
        (
            r#"{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-11-20T10:30:00+01:00","renewTime":"2026-11-20T09:31:00+00:00","leaderTransitions":3}"#,
            record(),
        ),
        // Go's own freedom: keys in any case, and a null that changes nothing.
        (
            r#"{"HolderIdentity":"a","LEASEDURATIONSECONDS":15,"acquiretime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leader\u0054ransitions":3}"#,
            record(),
        ),
        (
            r#"{"holderIdentity":"z","HOLDERIDENTITY":"a","leaſeDurationSecondſ":15,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leaderTransitions":3}"#,
            record(),
        ),
        (
            r#"{"holderIdentity":"a","holderIdentity":null,"HolderIdentity":null,"leaseDurationSeconds":15,"leaseDurationSeconds":null,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","renewTime":null,"leaderTransitions":3,"LeaderTransitions":null}"#,
            record(),
        ),
        // Fields that only some clients know are no reason for the others not to read it.
        (
            r#"{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leaderTransitions":3,"strategy":7,"preferredHolder":{},"holderKey":[1]}"#,
            record(),
        ),
        // Unknown fields, of any shape; of two the last.
        (
            r#"{"holderIdentity":"z","more":{"renewTime":[1,{}]},"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-11-20T09:30:00Z","renewTime":"2026-11-20T09:31:00Z","leaderTransitions":3}"#,
            record(),
        ),
        ("{}", Record::default()),
    ];
    for (value, expected) in cases {
        assert_eq!(parse(value), Ok(expected), "{value}");
    }
}

#[test]
fn istios_revision_is_read_beside_the_record() {
    let key = |value: &str| parse_with_key(value).unwrap().1;
    assert_eq!(
        key(r#"{"holderIdentity":"a","holderKey":"default"}"#),
        Some("default".into())
    );
    assert_eq!(key(r#"{"holderIdentity":"a"}"#), None);
}

#[test]
fn numbers_are_rounded_down_and_stay_within_32_bits() {
    for (number, expected) in [
        ("15.9", 15),
        ("\"15.9\"", 15),
        ("-0.5", -1),
        ("2147483648", i32::MAX),
        ("18446744073709551615", i32::MAX),
        ("1e300", i32::MAX),
        ("-1e300", i32::MIN),
        ("\"99999999999999999999\"", i32::MAX),
    ] {
        for field in ["leaseDurationSeconds", "leaseDuration"] {
            let record = parse(&format!(r#"{{"{field}":{number}}}"#)).unwrap();
            assert_eq!(record.duration_seconds, Some(expected), "{field}: {number}");
        }
    }
}

#[test]
fn what_no_client_writes_is_malformed_and_is_not_repeated() {
    for (value, complaint) in [
        ("", "it is not a JSON object (line 1, column 0)"),
        ("null", "it is not a JSON object (line 1, column 4)"),
        ("\"secret\"", "it is not a JSON object (line 1, column 8)"),
        ("[]", "it is not a JSON object (line 1, column 0)"),
        (
            r#"{"holderIdentity":"secret""#,
            "it is not a JSON object (line 1, column 26)",
        ),
        (r#"{"holderIdentity":7}"#, "holderIdentity is not a string"),
        (
            r#"{"leaseDurationSeconds":"secret"}"#,
            "leaseDurationSeconds is not a number",
        ),
        (
            r#"{"leaseDurationSeconds":"NaN"}"#,
            "leaseDurationSeconds is not a number",
        ),
        (
            r#"{"leaderTransitions":[3]}"#,
            "leaderTransitions is not a number",
        ),
        (
            r#"{"renewTime":"secret"}"#,
            "renewTime is not a time such as 2026-11-20T09:30:00Z",
        ),
        (
            r#"{"acquireTime":1795000000}"#,
            "acquireTime is not a time such as 2026-11-20T09:30:00Z",
        ),
    ] {
        let error = parse(value).unwrap_err().to_string();
        assert_eq!(error, complaint, "{value}");
    }
}

#[test]
fn a_renewal_in_local_time_is_one() {
    let version = |renewed: &str| {
        parse(&format!(
            r#"{{"holderIdentity": "a", "leaseDurationSeconds": "15", "acquireTime": "2026-11-20 09:30:00", "renewTime": "{renewed}"}}"#
        ))
        .unwrap()
    };
    let (old, new) = (version("2026-11-20 09:31:00.5"), version("2026-11-20 09:31:02.5"));
    assert_eq!(Change::between(&old, &new), Change::Renew);
    assert_eq!(Change::between(&old, &old), Change::Untouched);
}
