use crate::{
    policy::Policy,
    suggest::{
        SuggestionError,
        testing::{denial, denial_by, duration, log, suggest},
    },
};

/// Merges one override into a document, and asserts that nothing of the text is lost or changed, that the policy says what
/// it should, and that doing it again changes nothing.
#[track_caller]
fn merged(document: &str) -> String {
    let lines = [
        denial("shop", "payments"),
        denial_by("stamp-tampered", "shop", "payments"),
    ];
    let suggestion = suggest(document, &lines);
    let text = suggestion.policy;
    // What was there is there, in its order.
    let mut characters = text.chars();
    assert!(
        document.chars().all(|it| characters.any(|other| other == it)),
        "{text}"
    );
    let (before, after) = (Policy::parse(document).unwrap(), Policy::parse(&text).unwrap());
    let count = before.document().overrides.len();
    assert_eq!(after.document().overrides.len(), count + 1, "{text}");
    let mut expected = after.document().clone();
    let added = expected.overrides.pop().unwrap();
    assert_eq!(expected, *before.document());
    assert_eq!(added.r#match.names.first().unwrap().as_str(), "payments");
    let again = suggest(&text, &lines);
    assert_eq!(again.entries, []);
    assert_eq!(again.policy, text, "once more");
    text
}

/// The lines of a text that are no comments.
fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

const ITEM: &str =
    "match: {namespaces: [\"shop\"], names: [\"payments\"]}, rules: {transition-not-counted: {action: warn}}";

#[test]
fn overrides_are_added_where_they_belong_in_every_style() {
    let block = |indent: &str| {
        format!(
            "{indent}- match:\n{indent}    namespaces: [\"shop\"]\n{indent}    names: [\"payments\"]\n{indent}  rules: \
             {{transition-not-counted: {{action: warn}}}}\n"
        )
    };
    let (two, none, four) = (block("  "), block(""), block("    "));
    let has = "- match: {names: [a]}\n  mode: off";
    for (document, expected) in [
        // Nothing there yet.
        (String::new(), format!("overrides:\n{two}")),
        ("mode: audit".into(), format!("mode: audit\noverrides:\n{two}")),
        (
            "---\nmode: audit\n".into(),
            format!("---\nmode: audit\noverrides:\n{two}"),
        ),
        (
            "mode: audit\n...\n".into(),
            format!("mode: audit\noverrides:\n{two}...\n"),
        ),
        (
            "  mode: audit\n  maxSkew: 3s\n".into(),
            format!("  mode: audit\n  maxSkew: 3s\n  overrides:\n{four}"),
        ),
        // An empty field.
        (
            "overrides:\nmode: audit\n".into(),
            format!("overrides:\n{two}mode: audit\n"),
        ),
        (
            "overrides: # none\nmode: audit".into(),
            format!("overrides: # none\n{two}mode: audit\n"),
        ),
        // Lines.
        (
            format!("overrides:\n{has}\nmode: audit\n"),
            format!("overrides:\n{has}\n{none}mode: audit\n"),
        ),
        (
            format!("\"overrides\":\n{has}"),
            format!("\"overrides\":\n{has}\n{none}"),
        ),
        (
            "overrides:\n    -\n      match: {names: [a]}\n      mode: off   # why\n\nmode: audit\n".into(),
            format!(
                "overrides:\n    -\n      match: {{names: [a]}}\n      mode: off   # why\n{four}mode: audit\n"
            ),
        ),
        (
            "overrides:\n  - match:\n      names:\n      - a\n      - b\n    mode: off\nmode: audit\n".into(),
            format!(
                "overrides:\n  - match:\n      names:\n      - a\n      - b\n    mode: off\n{two}mode: audit\n"
            ),
        ),
        // Brackets.
        (
            "overrides: []\n".into(),
            format!("overrides: [\n    {{{ITEM}}}\n]\n"),
        ),
        ("{}".into(), format!("{{\"overrides\": [{}]}}\n", json())),
        (
            "{mode: audit}\n".into(),
            format!("{{mode: audit,\n  overrides: [\n    {{{ITEM}}}\n  ]\n}}\n"),
        ),
        (
            "{overrides: [{match: {names: ['a]', b]}, mode: off}], mode: audit}\n".replace("'a]', ", "'a', "),
            format!(
                "{{overrides: [{{match: {{names: ['a', b]}}, mode: off}},\n    {{{ITEM}}}\n], mode: audit}}\n"
            ),
        ),
    ] {
        assert_eq!(without_comments(&merged(&document)), expected, "{document:?}");
    }
}

fn json() -> String {
    "{\"match\":{\"names\":[\"payments\"],\"namespaces\":[\"shop\"]},\"rules\":{\"transition-not-counted\":{\"action\":\"warn\"}}}"
        .to_owned()
}

#[test]
fn unusual_texts_stay_byte_for_byte() {
    for document in [
        "\u{feff}mode: audit\n",
        "# only a comment\n",
        "# only a comment",
        "mode: audit\r\noverrides:\r\n- match: {names: [a]}\r\n  mode: off\r\nmaxSkew: 3s\r\n",
        "mode: audit\r\n",
        "overrides:\n  - match: {names: [\"a\"]} # ] }\n    mode: off\n  # about the list\n# about what follows\nmode: audit\n",
        "overrides: [ # ]\n  {match: {names: [\"a\"]}, mode: off}, # the last ]\n]\n",
        "overrides: [{match: {names: [\"*-a\", '*z']}, mode: off} # it's so\n  ]\nmode: audit\n",
        "mode: audit\noverrides:   \n\n\n  - {match: {namespaces: [\"a*\"]}, mode: off}\n\n\n# end\n",
        "{\"mode\": \"audit\", \"overrides\": [{\"match\": {\"names\": [\"a\"]}, \"mode\": \"off\"}]}",
        "{\"mode\": \"audit\", \"overrides\": [ ]}\n",
        "{\n  \"overrides\": [\n    {\"match\": {\"names\": [\"a\"]}, \"mode\": \"off\"}\n  ]\n}\n",
        "mode: audit\nbreakGlass: {groups: [\"it's [me]\", \"a # b\"]}\n",
        "mode: &a audit\noverrides:\n- match: {names: [x]}\n  mode: *a\n",
        "# caf\u{e9} \u{1f600}\noverrides: [] # caf\u{e9}\n",
        "? overrides\n: []\n",
        "%YAML 1.2\n---\nmode: audit\n",
        "mode:\n  audit\noverrides:\n  - match:\n      names: [a,\n        b\n      ]\n    mode:\n      off\n",
    ] {
        let text = merged(document);
        let is_json = document.starts_with("{\"") || document.starts_with("{\n");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            is_json,
            "{text}"
        );
        let windows = document.contains('\r');
        assert!(!windows || !text.replace("\r\n", "").contains('\n'), "{text:?}");
    }
}

#[test]
fn what_cannot_be_added_to_safely_is_refused_with_what_to_do() {
    for (document, problem) in [
        ("overrides: ~\n", "overrides has the value null"),
        ("overrides: null\nmode: audit\n", "overrides has the value null"),
        (
            "overrides: &all []\n",
            "overrides is an alias, or has an anchor or a tag in front",
        ),
        (
            "overrides: !!seq []\n",
            "overrides is an alias, or has an anchor or a tag in front",
        ),
        (
            "\"over\\x72ides\": []\n",
            "a name that is written in an unusual way",
        ),
    ] {
        let Err(error) =
            super::super::Suggestion::of(&log(document, &[denial("shop", "payments")]), document)
        else {
            panic!("{document:?} was taken")
        };
        let message = error.to_string();
        assert!(matches!(error, SuggestionError::Merge(_)), "{message}");
        assert!(
            message.contains(problem) && message.contains("write overrides as a plain list"),
            "{message}"
        );
    }
}

#[test]
fn a_policy_without_need_stays_as_it_is() {
    for document in ["", "mode: audit", "overrides: ~\n", "{}"] {
        assert_eq!(suggest(document, &[]).policy, document);
    }
}

#[test]
fn what_is_not_excused_stands_at_the_end_once() {
    let lines = [denial_by("stamp-tampered", "shop", "payments")];
    let text = suggest("mode: audit", &lines).policy;
    assert!(text.starts_with("mode: audit\n\n# Not excused: "), "{text}");
    assert!(
        text.ends_with("by system:serviceaccount:shop:payments.\n"),
        "{text}"
    );
    assert_eq!(suggest(&text, &lines).policy, text);
    let more = [lines, [duration("shop", "payments", 3)]].concat();
    let text = suggest(&text, &more).policy;
    assert_eq!(text.matches("Not excused").count(), 1, "{text}");
}

#[test]
fn a_list_that_lacks_a_lease_is_followed_by_one_that_has_it() {
    let first = [denial_by("stamp-tampered", "shop", "payments")];
    let text = suggest("mode: audit\n", &first).policy;
    let lists = |text: &str| text.matches("# Not excused").count();
    for (rule, name) in [
        ("stamp-tampered", "orders".to_owned()),
        ("foreign-release", "payments".to_owned()),
        ("stamp-tampered", "long-".repeat(40) + "name"),
    ] {
        let lines = [first.clone(), [denial_by(rule, "shop", &name)]].concat();
        let more = suggest(&text, &lines).policy;
        assert!(more.starts_with(&text), "{more}");
        assert_eq!((lists(&text), lists(&more)), (1, 2), "{more}");
        assert_eq!(suggest(&more, &lines).policy, more, "once more");
        // Fewer, or seen more often: nothing new.
        assert_eq!(suggest(&more, &first).policy, more);
        let mut often = lines.to_vec();
        often.push(denial_by(rule, "shop", &name));
        often[2]["uid"] = "another".into();
        assert_eq!(suggest(&more, &often).policy, more);
    }
    let many: Vec<_> = (0..60)
        .map(|index| denial_by("stamp-tampered", "shop", &format!("n{index}")))
        .collect();
    let text = suggest("mode: audit\r\n", &many).policy;
    assert!(
        text.contains("# - and more leases, which --output json lists."),
        "{text}"
    );
    assert_eq!(suggest(&text, &many).policy, text);
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let document = "overrides:\n- match: {names: [a]}\n  mode: off # why\n\n# About the mode.\nmode: audit\n";
    let text = merged(document);
    let (before, after) = text.split_once("# transition-not-counted: ").unwrap();
    assert_eq!(before, "overrides:\n- match: {names: [a]}\n  mode: off # why\n");
    assert!(after.contains("\n\n# About the mode.\nmode: audit\n"), "{text}");
}

#[test]
fn a_text_that_says_more_or_less_than_was_added_is_noticed() {
    let policy = Policy::parse("mode: audit").unwrap();
    let suggestion = suggest("mode: audit", &[denial("shop", "payments")]);
    let merged = Policy::parse(&suggestion.policy).unwrap();
    let entries = &suggestion.entries;
    assert!(super::says(&merged, &policy, entries));
    assert!(!super::says(&policy, &policy, entries), "the override is lost");
    assert!(!super::says(&merged, &policy, &[]), "an override too many");
    let other = Policy::parse(&suggestion.policy.replace("mode: audit", "mode: off")).unwrap();
    assert!(!super::says(&other, &policy, entries), "another field is changed");
}
