//! The words in which the rules' CEL is written: variables that say of a write what [`crate::lease`] says of it.
//!
//! Each is computed when it is first asked for, so a write that no rule looks at closely costs nothing. None of them
//! can fail: an evaluation error would be decided by failurePolicy, in silence. So every field is reached by optional
//! access, and no time is converted that CEL's timestamps cannot hold.
//!
//! Admission sees the times of an object as strings, and the API server type-checks them as timestamps: `string` is
//! right for both. It knows no fields within `fieldsV1`, so what looks there is a variable, which it does not type-check.

use super::setting::Variable;
use crate::lease::Tolerance;

/// The greatest time that is told apart, in seconds after 1970: 9999-01-01. CEL's timestamps end there, and a client
/// that knows how (`9999-12-31T23:59:59-01:00`) has the API server print a year of five digits.
const LATEST: &str = "253370764800";

/// The least time that is told apart: 0001-01-01. CEL's timestamps begin there, and a client may write the year 0.
const EARLIEST: &str = "-62135596800";

/// Seconds after 1970 of `time`, a string by the API server, rounded down; what is out of range is its nearest end.
///
/// RFC 3339 in UTC orders like its instants, as long as years have four digits.
fn seconds() -> String {
    format!(
        "time.startsWith('10000-') || time >= '9999' ? {LATEST}\n: time < '0001' ? {EARLIEST} : int(timestamp(time))"
    )
}

/// The renewTime of an object, in seconds after 1970, rounded down and rounded up; empty where there is none.
fn renew_time(object: &str) -> String {
    format!(
        "!{object}.?spec.?renewTime.hasValue() ? [] : [string({object}.spec.renewTime)].map(time,\n{})\n\
         .map(down, [down, down + (string({object}.spec.renewTime).endsWith('.000000Z') ? 0 : 1)])[0]",
        seconds()
    )
}

/// The times, in seconds, at which the API server saw a field of the spec written: one for each dated entry that owns it.
fn stamps(object: &str, field: &str) -> String {
    format!(
        "{object}.metadata.?managedFields.orValue([])\n.filter(entry, entry.?time.hasValue() && {})\n\
         .map(entry, string(entry.time)).map(time,\n{})",
        owns(field),
        seconds()
    )
}

/// Whether an entry of managedFields owns a field of the spec.
pub(super) fn owns(field: &str) -> String {
    owned_by("entry", field)
}

/// Whether this entry of managedFields owns a field of the spec.
fn owned_by(entry: &str, field: &str) -> String {
    format!("{entry}.?fieldsV1[?'f:spec'][?'f:{field}'].hasValue()")
}

/// Whether the stamps alone say that the old record had expired by the write, `slack` seconds allowed for. What is
/// true here needs no closer look, which costs a lawful takeover several times as much; what is not is judged by the
/// other variables.
fn expired_by_stamps(slack: i64) -> String {
    let (renewal, write) = (
        owned_by("renewal", "renewTime"),
        owned_by("write", "holderIdentity"),
    );
    // A year of four digits from 1 on: whatever is in CEL's calendar.
    let in_range = |entry: &str| {
        format!("string({entry}.?time.orValue('')).size() == 20 && string({entry}.time) >= '0001'")
    };
    let seconds = |entry: &str| format!("int(timestamp(string({entry}.time)))");
    format!(
        "oldObject.?spec.?renewTime.hasValue()\n\
         && oldObject.metadata.?managedFields.orValue([]).exists(renewal, {renewal})\n\
         && oldObject.metadata.?managedFields.orValue([]).all(renewal, !{renewal} || {}\n\
         && object.metadata.?managedFields.orValue([]).all(write, !{write} || {}\n\
         && {} - {} >= oldObject.?spec.?leaseDurationSeconds.orValue(0) - {slack}))",
        in_range("renewal"),
        in_range("write"),
        seconds("write"),
        seconds("renewal"),
    )
}

/// An identity as messages show it: quoted, escaped, and cut where it is long, as [`crate::policy::rules`] has it.
fn quoted(identity: &str) -> String {
    format!(
        "{identity} == '' ? 'nobody' : {identity}.size() > 300\n\
         ? strings.quote({identity}.substring(0, 300)) + '\\u2026' : strings.quote({identity})"
    )
}

/// The longest host name that Linux gives a pod, as [`crate::lease::Writer::ownership_of`] has it.
const LONGEST_HOSTNAME: usize = 63;

/// How many hyphens and dots at the end of a hostname that was cut are left out. Two in a row are rare in a pod's name.
const LONGEST_CUT: usize = 4;

/// Whether an identity is the writer's by the pod that its token is bound to, as [`crate::lease::Writer::ownership_of`] has
/// it.
fn by_pod(identity: &str) -> String {
    format!(
        "variables.podNames.exists(names, names.exists(name, {identity}.startsWith(name)\n\
         && ({identity} == name || [{identity}.substring(name.size())].exists(rest,\n\
         rest.matches('^[_./:]') || rest.startsWith('-')\n\
         && !rest.matches('^-+([bcdfghjklmnpqrstvwxz2456789]{{5}}|[0-9]{{1,5}})$')))))"
    )
}

/// Whether the writer's field manager carries an identity, as [`crate::lease::Writer::ownership_of`] has it.
fn carried(identity: &str) -> String {
    format!(
        "{identity} != '' && (variables.fieldManager == {identity}\n\
         || variables.fieldManager.endsWith('-' + {identity}))"
    )
}

/// What costs less than a variable wherever it is asked for, or is asked for in messages only, which few writes lead to.
const WORDS: [&str; 27] = [
    "update",
    "lease",
    "oldHolder",
    "newHolder",
    "fieldManager",
    "quotedOldHolder",
    "quotedNewHolder",
    "oldDuration",
    "newDuration",
    "oldTransitions",
    "newTransitions",
    "sameHolder",
    "givesNewHolder",
    "replacesHolder",
    "neverHeld",
    "now",
    "age",
    "wasTracked",
    "isTracked",
    "takesOver",
    "isAmended",
    "beatsByAcquireTime",
    "heartbeat",
    "heartbeatStamps",
    "heartbeatIsOwned",
    "newRenewTimeStamps",
    "expiredByStamps",
];

/// The variables that every policy may use.
pub(super) fn variables(tolerance: Tolerance) -> Vec<Variable> {
    let slack = tolerance.clock_slack.as_secs();
    let max_skew = tolerance.max_skew.as_secs();
    let contradiction = slack + 2 * max_skew;
    let of_spec =
        |object: &str, field: &str, absent: &str| format!("{object}.?spec.?{field}.orValue({absent})");
    let old_or = |expression: &str, none: &str| format!("variables.update ? {expression} : {none}");
    let same = |field: &str| format!("object.?spec.?{field} == oldObject.?spec.?{field}");
    let tracked = |object: &str| {
        format!("{object}.metadata.?managedFields.orValue([]).exists(entry, entry.?fieldsV1.hasValue())")
    };
    let either = |field: &str| {
        format!("object.?spec.?{field}.hasValue() || variables.update && oldObject.?spec.?{field}.hasValue()")
    };
    let cuts: Vec<_> = (LONGEST_HOSTNAME - LONGEST_CUT..=LONGEST_HOSTNAME)
        .rev()
        .map(|end| end.to_string())
        .collect();
    let cuts = cuts.join(", ");
    let old_by_manager = format!(
        "{} && [oldObject.metadata.?managedFields.orValue([]).filter(entry, {})].exists(owners,\n\
         owners.size() > 0 && owners.all(entry, entry.?manager.orValue('') == variables.fieldManager))",
        carried("variables.oldHolder"),
        owns("holderIdentity"),
    );
    let moves_renew_time = format!("object.?spec.?renewTime.hasValue() && !({})", same("renewTime"));

    let definitions: Vec<(&str, String)> = vec![
        ("update", "request.operation == 'UPDATE'".to_owned()),
        ("lease", "object.metadata.namespace + '/' + object.metadata.name".to_owned()),
        ("oldHolder", of_spec("oldObject", "holderIdentity", "''")),
        ("newHolder", of_spec("object", "holderIdentity", "''")),
        ("sameHolder", "variables.update && variables.oldHolder == variables.newHolder".to_owned()),
        // A takeover, a handover or an acquisition.
        (
            "givesNewHolder",
            "variables.update && variables.newHolder != '' && variables.oldHolder != variables.newHolder".to_owned(),
        ),
        // A takeover or a handover.
        ("replacesHolder", "variables.oldHolder != '' && variables.givesNewHolder".to_owned()),
        ("fieldManager", "request.?options.?fieldManager.orValue('')".to_owned()),
        ("quotedOldHolder", quoted("variables.oldHolder")),
        ("quotedNewHolder", quoted("variables.newHolder")),
        ("oldDuration", of_spec("oldObject", "leaseDurationSeconds", "0")),
        ("newDuration", of_spec("object", "leaseDurationSeconds", "0")),
        ("oldTransitions", of_spec("oldObject", "leaseTransitions", "0")),
        ("newTransitions", of_spec("object", "leaseTransitions", "0")),
        // As lease::Purpose::of has it.
        (
            "purpose",
            format!(
                "{duration} ? 'timed'\n: {count} ? 'counted'\n: {times} ? 'beating' : 'untimed'",
                duration = either("leaseDurationSeconds"),
                count = either("leaseTransitions"),
                times = "object.?spec.?renewTime.hasValue() && object.?spec.?acquireTime.hasValue()\n\
                         || variables.update && oldObject.?spec.?renewTime.hasValue() && oldObject.?spec.?acquireTime.hasValue()",
            ),
        ),
        // As lease::Writer::ownership_of has it: the names by which an identity can be this pod's, its hostname one of them.
        (
            "podNames",
            format!(
                "[request.userInfo.?extra[?'authentication.kubernetes.io/pod-name'][?0].orValue('')]\n\
                 .filter(pod, pod != '')\n\
                 .map(pod, pod.size() <= {LONGEST_HOSTNAME} ? [pod] : [pod] + [{cuts}]\n\
                 .filter(end, !(pod.substring(end - 1, end) in ['-', '.']))\n\
                 .map(end, pod.substring(0, end)))"
            ),
        ),
        // As lease::Write::new has it.
        (
            "isHandover",
            format!(
                "({old_by_pod}\n|| {old_by_manager})\n&& !({new_by_pod}) && !({new_by_manager})",
                old_by_pod = by_pod("variables.oldHolder"),
                new_by_pod = by_pod("variables.newHolder"),
                old_by_manager = old_by_manager,
                new_by_manager = carried("variables.newHolder"),
            ),
        ),
        ("takesOver", "variables.replacesHolder && !variables.isHandover".to_owned()),
        // Of the same holder's record something else than renewTime moves.
        (
            "isAmended",
            format!(
                "!({duration} && {transitions} && {acquire_time} && {preferred_holder}\n\
                 && {new_strategy} == {old_strategy})",
                duration = same("leaseDurationSeconds"),
                transitions = same("leaseTransitions"),
                acquire_time = same("acquireTime"),
                preferred_holder = same("preferredHolder"),
                new_strategy = of_spec("object", "strategy", "''"),
                old_strategy = of_spec("oldObject", "strategy", "''"),
            ),
        ),
        // As lease::Change::between has it.
        (
            "change",
            format!(
                "!variables.update ? 'create'\n\
                 : variables.oldHolder != variables.newHolder\n\
                 ? (variables.oldHolder == '' ? 'acquire' : variables.newHolder == '' ? 'release'\n\
                 : variables.isHandover ? 'handover' : 'takeover')\n\
                 : variables.isAmended ? 'amend'\n\
                 : {renew_time} ? 'untouched'\n\
                 : variables.oldHolder != '' && object.?spec.?renewTime.hasValue() ? 'renew' : 'amend'",
                renew_time = same("renewTime"),
            ),
        ),
        // As lease::Record::was_never_held has it.
        (
            "neverHeld",
            "variables.oldHolder == '' && variables.oldTransitions == 0\n\
             && !oldObject.?spec.?acquireTime.hasValue() && !oldObject.?spec.?renewTime.hasValue()"
                .to_owned(),
        ),
        ("newRenewTimeStamps", stamps("object", "renewTime")),
        // As lease::Record::heartbeat has it, of the old record.
        (
            "beatsByAcquireTime",
            "!oldObject.?spec.?renewTime.hasValue() && oldObject.?spec.?acquireTime.hasValue()".to_owned(),
        ),
        (
            "heartbeat",
            "variables.beatsByAcquireTime ? 'acquireTime' : 'renewTime'".to_owned(),
        ),
        // The stamps of the same field after the write.
        (
            "heartbeatStamps",
            format!(
                "variables.beatsByAcquireTime ? {}\n: variables.newRenewTimeStamps",
                stamps("object", "acquireTime")
            ),
        ),
        (
            "heartbeatIsOwned",
            format!(
                "object.metadata.?managedFields.orValue([]).exists(entry,\n\
                 variables.beatsByAcquireTime ? {} : {})",
                owns("acquireTime"),
                owns("renewTime")
            ),
        ),
        // As lease::State::tracked has it.
        ("wasTracked", old_or(&tracked("oldObject"), "false")),
        ("isTracked", tracked("object")),
        ("oldRenewTime", old_or(&format!("({})", renew_time("oldObject")), "[]")),
        ("newRenewTime", renew_time("object")),
        // When this write happens, as lease::Write::stamped_now has it: at most one time.
        (
            "written",
            format!(
                "!variables.update || variables.givesNewHolder\n? {}\n\
                 : {moves_renew_time} ? variables.newRenewTimeStamps : []",
                stamps("object", "holderIdentity"),
            ),
        ),
        ("now", "variables.written.max()".to_owned()),
        // When the old record was last renewed, as lease::State::renewed has it.
        (
            "renewals",
            old_or(
                &format!(
                    "(variables.beatsByAcquireTime ? {}\n: {})",
                    stamps("oldObject", "acquireTime"),
                    stamps("oldObject", "renewTime"),
                ),
                "[]",
            ),
        ),
        ("expiredByStamps", expired_by_stamps(slack)),
        ("age", "variables.now - int(timestamp(oldObject.metadata.creationTimestamp))".to_owned()),
        // As lease::Evidence::of has it, as far as the write's own stamp tells when it happens.
        (
            "evidence",
            format!(
                "variables.written.size() == 0 ? ''\n\
                 : variables.renewals.size() > 0\n\
                 ? (variables.renewals.max() - variables.now > {contradiction} ? 'implausible' : 'stamped')\n\
                 : variables.oldDuration > 0 && variables.age < variables.oldDuration && variables.age >= -{slack}\n\
                 ? 'created' : variables.oldRenewTime.size() > 0 ? 'claimed' : ''"
            ),
        ),
        // Rounded down.
        (
            "elapsed",
            "variables.evidence == 'created' ? variables.age\n\
             : variables.now - (variables.evidence == 'claimed' ? variables.oldRenewTime[1] : variables.renewals.max())"
                .to_owned(),
        ),
        // As lease::Write::skew has it: how far the clock of the writer is ahead, in whole seconds; at most one number,
        // and none where it is within maxSkew.
        (
            "excessiveSkew",
            format!(
                "variables.written.size() == 0 || {same} ? [] : [variables.newRenewTime].filter(renewed,\n\
                 renewed.size() > 0 && (renewed[1] - variables.now > {max_skew} || variables.now - renewed[0] > {max_skew}))\n\
                 .map(renewed, (renewed[1] - variables.now > {max_skew} ? renewed[0] : renewed[1]) - variables.now)",
                same = same("renewTime"),
            ),
        ),
    ];
    definitions
        .into_iter()
        .map(|(name, expression)| {
            if WORDS.contains(&name) {
                Variable::word(name, expression)
            } else {
                Variable::shared(name, expression)
            }
        })
        .collect()
}
