//! Who led when, drawn.

use leasehold::replay::{Selection, svg};

use super::{changed, lines, metadata, put, replay_files};

#[test]
fn the_picture_has_each_term_and_each_finding_and_takes_names_for_text() {
    let hostile = "x\u{1b}]\"><script>alert('&')</script>\u{202e}";
    let mut events = vec![
        put(0.0, "a", 0),
        put(2.0, "a", 0),
        put(4.0, hostile, 1),
        put(30.0, hostile, 1),
    ];
    events.push(changed(metadata(31.0, "b"), |event| {
        event["objectRef"]["name"] = "inferred".into();
    }));
    let (leases, ..) = replay_files(&[lines(&events)], Selection::default());
    let text = svg(&leases, 7);
    let picture = roxmltree::Document::parse(&text).unwrap();
    let elements = |name: &'static str| {
        let named = picture
            .descendants()
            .filter(move |node| node.tag_name().name() == name);
        named.collect::<Vec<_>>()
    };
    assert!(elements("script").is_empty());
    let of_class = |class: &str| {
        let nodes = picture.descendants();
        nodes
            .filter(|node| node.attribute("class") == Some(class))
            .count()
    };
    assert_eq!(of_class("bar"), 3, "{text}");
    assert_eq!((of_class("lane"), of_class("denied")), (2, 1));
    let hatched = elements("rect")
        .iter()
        .filter(|rect| rect.attribute("fill") == Some("url(#inferred)"))
        .count();
    assert_eq!(hatched, 1);
    let titles: Vec<_> = elements("title")
        .iter()
        .filter_map(roxmltree::Node::text)
        .collect();
    assert!(
        titles.iter().any(|title| title
            .starts_with("x\u{fffd}]\"><script>alert('&')</script>\u{fffd}: 2026-11-27T10:00:04")),
        "{titles:?}"
    );
    assert!(
        titles
            .iter()
            .any(|title| title.contains("takeover-before-expiry")),
        "{titles:?}"
    );
    assert!(text.contains("Shown are 2 of 7 leases."));
}

#[test]
fn a_picture_of_nothing_or_of_too_much_is_one_all_the_same() {
    roxmltree::Document::parse(&svg(&[], 0)).unwrap();
    let events: Vec<_> = (0..6000_i32)
        .map(|number| put(f64::from(number) * 20.0, &number.to_string(), i64::from(number)))
        .collect();
    let (leases, ..) = replay_files(&[lines(&events)], Selection::default());
    let text = svg(&leases, 1);
    let picture = roxmltree::Document::parse(&text).unwrap();
    assert!(picture.descendants().count() < 20_000);
    assert!(text.contains("terms and marks too close to others are left out"));
}
