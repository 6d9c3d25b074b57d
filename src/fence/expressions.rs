//! What a fence asks of a write, in CEL.
//!
//! Every expression is null-safe: an error would be a refusal that explains nothing, or in mode audit silence.

use crate::{
    cel::literal,
    policy::{BREAK_GLASS_ANNOTATION, profiles},
};

use super::{Fence, Nobody, ObjectName, manifest::Named};

/// What may follow the pod's name in an identity so that the whole can be no other pod's name: a character that no
/// name of a pod holds, or a hyphen and a UUID.
const AFTER_THE_POD: &str = "^([_/:]|-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$)";

/// A list of literals.
fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let literals: Vec<_> = texts.into_iter().map(literal).collect();
    format!("[{}]", literals.join(", "))
}

/// Which writes the fence looks at, beyond what the policy's constraints can say.
pub(super) fn match_conditions(fence: &Fence) -> Vec<Named> {
    let mut conditions = Vec::new();
    let accounts: Vec<_> = fence
        .only_service_accounts
        .iter()
        .map(|account| format!("system:serviceaccount:{}:{}", account.namespace, account.name))
        .collect();
    if !accounts.is_empty() {
        let accounts = list(accounts.iter().map(String::as_str));
        conditions.push(Named::new(
            "by-fenced-service-account",
            format!("request.userInfo.username in {accounts}"),
        ));
    }
    conditions.push(Named::new(
        "not-by-control-plane",
        format!(
            "!(request.userInfo.username in {})",
            list(profiles::CONTROLLERS.iter().copied())
        ),
    ));
    if !fence.names.is_empty() {
        // A deletion of a collection names no object in the request, so resourceNames would let it through.
        let names = list(fence.names.iter().map(ObjectName::as_str));
        conditions.push(Named::new(
            "fenced-name",
            format!("(object == null ? oldObject : object).metadata.?name.orValue(\"\") in {names}"),
        ));
    }
    conditions
}

/// What the validation is made of, each by the ones before it.
pub(super) fn variables(fence: &Fence) -> Vec<Named> {
    let mut variables = vec![
        Named::new("holder", "params.?spec.?holderIdentity.orValue(\"\")"),
        Named::new("pod", of_token("pod-name")),
        Named::new("podUid", of_token("pod-uid")),
        Named::new("holds", holds(fence)),
    ];
    if fence.when_expired == Nobody::Deny {
        variables.push(Named::new("stamps", STAMPS));
        variables.push(Named::new("expired", expired(fence)));
    }
    variables.extend([
        Named::new(
            "writer",
            "(variables.pod == \"\" ? \"\" : \"pod \" + strings.quote(variables.pod) + \" of \") + \"user \" + \
             strings.quote(request.userInfo.username)",
        ),
        Named::new("refusal", refusal(fence)),
        Named::new("reason", REASON.replace("ANNOTATION", &literal(BREAK_GLASS_ANNOTATION))),
        Named::new("breakGlass", break_glass(fence)),
    ]);
    variables
}

/// Whether the write passes.
pub(super) const PASSES: &str = "variables.refusal == \"\" || variables.breakGlass";

/// What the refusal says.
pub(super) const REFUSAL: &str = "variables.refusal";

/// What the API server's audit log is told of broken glass; nothing where it is empty.
pub(super) const BREAK_GLASS_NOTE: &str = "variables.breakGlass && variables.refusal != \"\" ?\n  \"user \" + \
     strings.quote(request.userInfo.username) + \", reason \" + strings.quote(variables.reason) + \": \" + \
     variables.refusal : \"\"";

/// What the API server knows of the pod that a token is bound to
/// (`k8s.io/apiserver/pkg/authentication/serviceaccount`: `PodNameKey`, `PodUIDKey`); empty for other credentials.
fn of_token(key: &str) -> String {
    let key = literal(&format!("authentication.kubernetes.io/{key}"));
    format!("request.userInfo.?extra[?{key}][?0].orValue(\"\")")
}

/// Whether the writer is provably the pod that the identity names.
fn holds(fence: &Fence) -> String {
    let account = literal(&format!("system:serviceaccount:{}:", fence.pod_namespace));
    format!(
        "request.userInfo.username.startsWith({account}) && variables.pod != \"\" && (\n  variables.holder in \
         [variables.pod, variables.podUid] ||\n  variables.holder.startsWith(variables.pod) &&\n  \
         variables.holder.substring(size(variables.pod)).matches({})\n)",
        literal(AFTER_THE_POD)
    )
}

/// The stamps that the API server has put on the object. The latest is of this write, unless it only removes fields; a
/// deletion has none. Where there is none, the lease counts as unexpired.
const STAMPS: &str = "object == null ? [] :\n  object.metadata.?managedFields.orValue([]).filter(entry, \
     has(entry.time)).map(entry, timestamp(entry.time))";

/// Whether the lease has expired, as far as can be told. Taken off the stamp, since a sum could overflow: renewTime is the
/// holder's, and may say anything.
fn expired(fence: &Fence) -> String {
    format!(
        "params.?spec.?renewTime.hasValue() && params.?spec.?leaseDurationSeconds.hasValue() &&\n\
         variables.stamps.exists(stamp, stamp - duration(string(params.spec.leaseDurationSeconds + {}) + \"s\") >\n  \
         timestamp(params.spec.renewTime))",
        fence.max_skew.get()
    )
}

/// Why the write is refused; empty where it is not.
fn refusal(fence: &Fence) -> String {
    let lease = &fence.lease;
    let mut cases = String::new();
    let free = match fence.when_free {
        Nobody::Deny => literal(&format!(
            "nobody holds lease {lease}, and only its holder's pod may write what it fences"
        )),
        Nobody::Allow => "\"\"".to_owned(),
    };
    cases.push_str(&format!("variables.holder == \"\" ? {free} :\n"));
    let (does_not_hold, does) = (
        literal(&format!(" does not hold lease {lease}, ")),
        literal(
            " does, and only the holder's pod may write what it fences: whoever led before has lost the lease and must stop",
        ),
    );
    cases.push_str(&format!(
        "!variables.holds ? variables.writer + {does_not_hold} + strings.quote(variables.holder) + {does} :\n"
    ));
    if fence.when_expired == Nobody::Deny {
        let (expired, ago, and_more) = (
            literal(&format!(" holds lease {lease}, but it has expired: renewed ")),
            literal(" s ago by its holder's clock, valid for "),
            literal(&format!(
                " s and {} s more for that clock. Either the holder stopped renewing, or its clock is behind, or the API \
                 server's copy of the lease stands still",
                fence.max_skew.get()
            )),
        );
        cases.push_str(&format!(
            "variables.expired ? variables.writer + {expired} +\n  string(int(variables.stamps.max()) - \
             int(timestamp(params.spec.renewTime))) + {ago} +\n  string(params.spec.leaseDurationSeconds) + {and_more} :\n"
        ));
    }
    cases.push_str("\"\"");
    cases
}

/// The reason that this write gives for breaking glass, as [`crate::policy`] reads it: only the write that sets the
/// annotation, or sets it anew, gives one; on a deletion, the object's own counts.
const REASON: &str = "object == null ? oldObject.metadata.?annotations[?ANNOTATION].orValue(\"\").trim() :\n\
     oldObject != null && oldObject.metadata.?annotations[?ANNOTATION] == object.metadata.?annotations[?ANNOTATION] ? \"\" :\n\
     object.metadata.?annotations[?ANNOTATION].orValue(\"\").trim()";

fn break_glass(fence: &Fence) -> String {
    let settings = &fence.break_glass;
    if settings.groups.is_empty() {
        return "false".to_owned();
    }
    let groups = list(settings.groups.iter().map(String::as_str));
    let mut may = format!("request.userInfo.?groups.orValue([]).exists(group, group in {groups})");
    if settings.require_annotation {
        may.push_str(" && variables.reason != \"\"");
    }
    may
}
