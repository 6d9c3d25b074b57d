//! `leasehold check`.

use serde_json::Value;

use super::{data, leasehold, stderr, stdout, temporary};

#[test]
fn it_exits_with_what_it_found() {
    let allowed = data("renew.json");
    let denied = data("takeover-early.json");
    for (files, code) in [
        (vec![&allowed], 0),
        (vec![&denied], 1),
        (vec![&allowed, &denied], 1),
    ] {
        let mut arguments = vec!["check"];
        arguments.extend(files.iter().map(|file| file.as_str()));
        assert_eq!(leasehold(&arguments, "").status.code(), Some(code), "{files:?}");
    }
    assert_eq!(
        leasehold(&["check"], "").status.code(),
        Some(2),
        "no file is a usage error"
    );
}

#[test]
fn it_prints_one_json_object_per_review() {
    let output = leasehold(
        &[
            "check",
            "-o",
            "json",
            &data("takeover-early.json"),
            &data("renew.json"),
        ],
        "",
    );
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    let early = &lines[0];
    assert_eq!(early["uid"], "eceb1929-3bd5-437f-88b3-60179298376d");
    assert_eq!(early["change"], "takeover");
    assert_eq!(early["verdict"], "deny");
    assert_eq!(early["mode"], "enforce");
    assert_eq!(early["evidence"]["kind"], "stamped");
    assert_eq!(early["evidence"]["elapsedSeconds"], 1);
    assert_eq!(early["evidence"]["durationSeconds"], 15);
    assert_eq!(early["evidence"]["renewed"], "2026-11-21T11:13:03Z");
    assert_eq!(early["evidence"]["now"], "2026-11-21T11:13:04Z");
    assert_eq!(early["violations"][0]["rule"], "takeover-before-expiry");
    assert_eq!(early["violations"][0]["action"], "enforce");
    assert!(
        early["violations"][0]["message"]
            .as_str()
            .unwrap()
            .contains("free in 14 s")
    );
    assert_eq!(lines[1]["verdict"], "allow");
    assert_eq!(lines[1]["violations"], serde_json::json!([]));
}

#[test]
fn it_judges_by_the_policy_given() {
    let audit = temporary("mode: audit\n");
    let policy = audit.path().display().to_string();
    let output = leasehold(
        &["check", "--policy-file", &policy, &data("takeover-early.json")],
        "",
    );
    assert_eq!(output.status.code(), Some(1), "it would be denied");
    assert!(
        stdout(&output).contains("allow (would be denied)"),
        "{}",
        stdout(&output)
    );
    let lenient = temporary("rules: {takeover-before-expiry: {action: warn}}\n");
    let policy = lenient.path().display().to_string();
    let output = leasehold(
        &["check", "--policy-file", &policy, &data("takeover-early.json")],
        "",
    );
    assert_eq!(output.status.code(), Some(0));
    let bad = temporary("mode: audit\nrules: {takeover: {}}\n");
    let policy = bad.path().display().to_string();
    let output = leasehold(
        &["check", "--policy-file", &policy, &data("takeover-early.json")],
        "",
    );
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains(&policy) && message.contains("line 2, column 9, rules: unknown field `takeover`"),
        "{message}"
    );
}

#[test]
fn it_takes_the_instant_given_for_our_clock() {
    let mut review: Value =
        serde_json::from_str(&std::fs::read_to_string(data("takeover-early.json")).unwrap()).unwrap();
    for object in ["object", "oldObject"] {
        review["request"][object]["metadata"]["managedFields"] = Value::Null;
    }
    // Created at 11:13:02 and without stamps: early at 11:13:05, and not a minute later.
    for (now, code) in [("2026-11-21T11:13:05Z", 1), ("2026-11-21T11:14:05Z", 0)] {
        let output = leasehold(&["check", "--now", now, "-"], &review.to_string());
        assert_eq!(output.status.code(), Some(code), "{now}: {}", stdout(&output));
    }
    assert_eq!(
        leasehold(&["check", "--now", "noon", "-"], "").status.code(),
        Some(2)
    );
}

#[test]
fn it_reads_on_after_a_bad_line_and_names_it() {
    let good: Value = serde_json::from_str(&std::fs::read_to_string(data("renew.json")).unwrap()).unwrap();
    let input = format!("{good}\n{{\"kind\": oops}}\n\n{{\"kind\":\"Pod\"}}\n{good}\n");
    let output = leasehold(&["check", "-o", "json", "-"], &input);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
    let message = stderr(&output);
    assert!(message.contains("-:2: expected value"), "{message}");
    assert!(
        message.contains("-:4: expected kind AdmissionReview"),
        "{message}"
    );
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_other_from_being_judged() {
    let (allowed, denied) = (data("renew.json"), data("takeover-early.json"));
    let output = leasehold(&["check", &allowed, "no-such-file.json", "/", &denied], "");
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("no-such-file.json cannot be read: No such file"),
        "{message}"
    );
    assert!(message.contains("/ cannot be read: Is a directory"), "{message}");
    assert!(
        stdout(&output).ends_with("2 reviews judged, 1 would be denied, 2 unreadable\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_file_without_a_review_is_no_success() {
    let empty = temporary("");
    let blank = temporary("\u{feff} \n\n");
    for (file, input) in [
        (empty.path().display().to_string(), ""),
        (blank.path().display().to_string(), ""),
        ("-".to_owned(), ""),
        ("-".to_owned(), "\n"),
    ] {
        let output = leasehold(&["check", &file], input);
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert_eq!(stderr(&output), format!("leasehold: {file}: holds no review\n"));
    }
}

#[test]
fn standard_input_is_read_only_once() {
    let review = std::fs::read_to_string(data("renew.json")).unwrap();
    for arguments in [
        &["check", "-", "-"][..],
        &["check", "--policy-file", "-", "-"],
        &["policy", "validate", "-", "-"],
    ] {
        let output = leasehold(arguments, &review);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(
            stderr(&output),
            "leasehold: standard input (-) is given twice, and can be read only once\n"
        );
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn an_indented_review_with_a_byte_order_mark_is_read() {
    let review: Value = serde_json::from_str(&std::fs::read_to_string(data("renew.json")).unwrap()).unwrap();
    let indented = serde_json::to_string_pretty(&review).unwrap();
    let output = leasehold(&["check", "-"], &format!("\u{feff}{indented}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("1 review judged, 0 would be denied\n"));
}

#[test]
fn what_is_wrong_with_an_indented_review_is_told_once() {
    let review: Value = serde_json::from_str(&std::fs::read_to_string(data("renew.json")).unwrap()).unwrap();
    let indented = serde_json::to_string_pretty(&review).unwrap();
    let cut = indented.get(..indented.len() / 2).unwrap();
    let wrong = indented.replacen("\"spec\": {", "\"spec\": oops {", 1);
    for (input, told) in [
        (cut.to_owned(), "-:1: the document that begins here is cut off\n"),
        (format!("{cut}\n{review}\n"), "-:1: "),
        (wrong, "-:1: expected value at line "),
    ] {
        let output = leasehold(&["check", "-o", "json", "-"], &input);
        assert_eq!(output.status.code(), Some(2));
        let message = stderr(&output);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with(&format!("leasehold: {told}")), "{message}");
        let judged = usize::from(input.ends_with('\n'));
        assert_eq!(
            stdout(&output).lines().count(),
            judged,
            "the review on a line of its own"
        );
    }
}

#[test]
fn a_list_of_reviews_is_refused_in_plain_words() {
    let review: Value = serde_json::from_str(&std::fs::read_to_string(data("renew.json")).unwrap()).unwrap();
    let output = leasehold(&["check", "-"], &format!("[{review}, {review}]"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("-:1: the body is not an AdmissionReview: it is no JSON object"),
        "{}",
        stderr(&output)
    );
}
