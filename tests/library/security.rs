//! What `docs/security.md` claims of tests.

use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All Rust under a folder, joined.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_it_names_is_there() {
    let document = std::fs::read_to_string(repository("docs/security.md")).unwrap();
    let mut all = String::new();
    for folder in ["src", "tests"] {
        sources(&repository(folder), &mut all);
    }
    let (mut named, mut missing) = (0, Vec::new());
    for span in document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| span.contains("::"))
    {
        named += 1;
        // The name of a function, or a part of a name that a loop puts together.
        let last = span.split("::").filter(|part| *part != "VERB").last().unwrap();
        let is_there = all.contains(&format!("fn {last}("))
            || all.contains(&format!("\"{last}\""))
            || all.contains(&format!("::{last}"));
        if !is_there {
            missing.push(span);
        }
    }
    assert!(named > 40, "only {named} tests are named");
    assert!(
        missing.is_empty(),
        "docs/security.md names tests that are not there: {missing:?}"
    );
}
