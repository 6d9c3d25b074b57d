//! Which overrides match a lease and its writer, as CEL.

use crate::{
    cel,
    policy::{
        LabelValue, Match, Name, Namespace, Pattern, ServiceAccount, pattern::Subject, service_account_user,
    },
};

/// CEL that says whether an override is about a write.
pub(super) fn matches(criteria: &Match) -> String {
    let Match {
        namespaces,
        names,
        labels,
        service_accounts,
    } = criteria;
    let mut all = Vec::new();
    if !namespaces.is_empty() {
        all.push(any::<Namespace>("object.metadata.namespace", namespaces));
    }
    if !names.is_empty() {
        all.push(any::<Name>("object.metadata.name", names));
    }
    for (key, value) in labels {
        let key = cel::literal(&key.to_string());
        all.push(format!("{key} in variables.labels"));
        all.extend(one::<LabelValue>(&format!("variables.labels[{key}]"), value));
    }
    if !service_accounts.is_empty() {
        all.push(by_any(service_accounts));
    }
    all.join(" && ")
}

/// Whether the writer is one of the service accounts.
fn by_any(accounts: &[ServiceAccount]) -> String {
    let user = "request.userInfo.username";
    let (patterns, exact): (Vec<_>, Vec<_>) = accounts
        .iter()
        .map(|account| service_account_user(account.namespace().as_str(), account.name().as_str()))
        .partition(|name| name.contains('*'));
    let mut some = Vec::new();
    if !exact.is_empty() {
        let exact: Vec<_> = exact.iter().map(|name| cel::literal(name)).collect();
        some.push(format!("{user} in [{}]", exact.join(", ")));
    }
    // A `*` stands for any characters of a namespace or of a name, and neither holds a colon.
    some.extend(patterns.iter().map(|name| {
        let expression = name.replace('.', "\\.").replace('*', "[^:]*");
        format!("{user}.matches({})", cel::literal(&format!("^{expression}$")))
    }));
    match some.as_slice() {
        [only] => only.clone(),
        _ => format!("({})", some.join(" || ")),
    }
}

/// Whether one of the patterns matches.
fn any<S: Subject>(subject: &str, patterns: &[Pattern<S>]) -> String {
    let is_exact = |pattern: &&Pattern<S>| !pattern.as_str().contains('*');
    let exact: Vec<_> = patterns
        .iter()
        .filter(is_exact)
        .map(|pattern| cel::literal(pattern.as_str()))
        .collect();
    let mut some: Vec<String> = Vec::new();
    match exact.as_slice() {
        [] => {}
        [only] => some.push(format!("{subject} == {only}")),
        _ => some.push(format!("{subject} in [{}]", exact.join(", "))),
    }
    for pattern in patterns.iter().filter(|pattern| !is_exact(pattern)) {
        match one(subject, pattern) {
            Some(condition) => some.push(condition),
            None => return "true".to_owned(),
        }
    }
    match some.as_slice() {
        [only] => only.clone(),
        _ => format!("({})", some.join(" || ")),
    }
}

/// Whether a pattern matches; `None` for one that matches anything.
fn one<S: Subject>(subject: &str, pattern: &Pattern<S>) -> Option<String> {
    let text = pattern.as_str();
    let stated: Vec<&str> = text.split('*').collect();
    let call =
        |function: &str, argument: &str| Some(format!("{subject}.{function}({})", cel::literal(argument)));
    match stated.as_slice() {
        [exact] => Some(format!("{subject} == {}", cel::literal(exact))),
        ["", "", ..] if stated.iter().all(|part| part.is_empty()) => None,
        [start, ""] => call("startsWith", start),
        ["", end] => call("endsWith", end),
        ["", part, ""] => call("contains", part),
        // The alphabets of names and labels have one character that means something in a regular expression.
        _ => call(
            "matches",
            &format!("^{}$", text.replace('.', "\\.").replace('*', ".*")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn every_kind_of_pattern_has_its_cel() {
        let expected = [
            ("namespaces: [shop]", r#"object.metadata.namespace == "shop""#),
            (
                "namespaces: [shop, bank, 'team-*', '*-test']",
                r#"(object.metadata.namespace in ["shop", "bank"] || object.metadata.namespace.startsWith("team-") || object.metadata.namespace.endsWith("-test"))"#,
            ),
            ("names: ['*']", "true"),
            ("names: [a, '**']", "true"),
            (
                "names: ['*legacy*']",
                r#"object.metadata.name.contains("legacy")"#,
            ),
            (
                "names: ['a.b*c*d']",
                r#"object.metadata.name.matches("^a\\.b.*c.*d$")"#,
            ),
            (
                "labels: {app: '*', example.com/team: blue}",
                r#""app" in variables.labels && "example.com/team" in variables.labels && variables.labels["example.com/team"] == "blue""#,
            ),
            (
                "names: [a], labels: {app: ''}",
                r#"object.metadata.name == "a" && "app" in variables.labels && variables.labels["app"] == """#,
            ),
            (
                "names: [a], serviceAccounts: [storage/manager]",
                r#"object.metadata.name == "a" && request.userInfo.username in ["system:serviceaccount:storage:manager"]"#,
            ),
            (
                "serviceAccounts: [a/b, c/d, 'team-*/a.b*']",
                r#"(request.userInfo.username in ["system:serviceaccount:a:b", "system:serviceaccount:c:d"] || request.userInfo.username.matches("^system:serviceaccount:team-[^:]*:a\\.b[^:]*$"))"#,
            ),
        ];
        for (criteria, cel) in expected {
            let document = format!("overrides: [{{match: {{{criteria}}}, mode: audit}}]");
            let policy = Policy::parse(&document).unwrap();
            assert_eq!(
                matches(&policy.document().overrides[0].r#match),
                cel,
                "{criteria}"
            );
        }
    }
}
