//! Names that share a shape: a pattern for ten or more of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

/// How many names share a shape before a pattern stands for them.
pub(super) const FEWEST: usize = 10;

/// Of names with more parts than this, only the last [`LAST_PARTS`] may differ: names of pods differ at their ends.
const MOST_PARTS: usize = 8;
const LAST_PARTS: usize = 4;

/// The names, and patterns in place of those that share a shape with at least nine others. A pattern is as narrow as the
/// names allow, and states at least one part of a name.
pub(super) fn patterns<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    if names.len() < FEWEST {
        return names.into_iter().map(str::to_owned).collect();
    }
    // How often each shape occurs, by its hash: of many names most shapes are those of one alone.
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for shape in names.iter().flat_map(|name| shapes_of(name)) {
        *counts.entry(hash(&shape)).or_default() += 1;
    }
    let mut shared: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in &names {
        let shapes = shapes_of(name).into_iter();
        for shape in shapes.filter(|shape| counts.get(&hash(shape)).is_some_and(|count| *count >= FEWEST)) {
            shared.entry(shape).or_default().push(name);
        }
    }
    // The narrowest first: the one that states the most. Of equals the one with the most names.
    let mut shared: Vec<_> = shared.into_iter().collect();
    shared.sort_by_key(|(shape, names)| Reverse((shape.len(), names.len())));
    let mut left = names;
    let mut chosen = BTreeSet::new();
    for (shape, names) in shared {
        if names.iter().filter(|name| left.contains(*name)).count() >= FEWEST {
            for name in names {
                left.remove(name);
            }
            chosen.insert(shape);
        }
    }
    chosen.extend(left.into_iter().map(str::to_owned));
    chosen
}

fn hash(shape: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    shape.hash(&mut hasher);
    hasher.finish()
}

/// The patterns that a name may be a part of: any one of its parts replaced, and all that follow one.
fn shapes_of(name: &str) -> BTreeSet<String> {
    let parts: Vec<&str> = name.split_inclusive(['-', '.']).collect();
    let mut shapes = BTreeSet::new();
    if parts.len() < 2 {
        return shapes;
    }
    let first = if parts.len() > MOST_PARTS {
        parts.len() - LAST_PARTS
    } else {
        0
    };
    for (index, part) in parts.iter().enumerate().skip(first) {
        let separator = part.chars().next_back().filter(|last| matches!(last, '-' | '.'));
        let before = parts.get(..index).unwrap_or_default().concat();
        let after = parts.get(index + 1..).unwrap_or_default().concat();
        let star = separator.map_or_else(|| "*".to_owned(), |separator| format!("*{separator}"));
        shapes.insert(format!("{before}{star}{after}"));
        if index > 0 {
            shapes.insert(format!("{before}*"));
        }
    }
    // Separators alone state nothing.
    shapes.retain(|shape| shape.chars().any(|it| it.is_ascii_alphanumeric()));
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Name, Pattern};

    fn of(names: &[String]) -> Vec<String> {
        patterns(names.iter().map(String::as_str)).into_iter().collect()
    }

    fn numbered(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
        (0..count).map(name).collect()
    }

    #[test]
    fn ten_names_of_one_shape_become_a_pattern_and_nine_do_not() {
        assert_eq!(of(&numbered(10, |it| format!("worker-{it}"))), ["worker-*"]);
        assert_eq!(of(&numbered(9, |it| format!("worker-{it}"))).len(), 9);
        assert_eq!(
            of(&numbered(12, |it| format!("shard{it}-controller"))),
            ["*-controller"]
        );
        assert_eq!(of(&numbered(10, |it| format!("a.{it}.b"))), ["a.*.b"]);
    }

    #[test]
    fn the_narrowest_shape_wins_and_what_has_none_stays() {
        let mut names = numbered(10, |it| format!("web-blue-{it}"));
        names.extend(numbered(11, |it| format!("web-green-{it}")));
        names.push("payments".into());
        names.push("web-red-0".into());
        assert_eq!(of(&names), ["payments", "web-blue-*", "web-green-*", "web-red-0"]);
        let hashed = numbered(10, |it| format!("job-{it}x-{it}y"));
        assert_eq!(of(&hashed), ["job-*"]);
    }

    #[test]
    fn names_without_a_part_in_common_stay() {
        let names = numbered(30, |it| format!("n{it}"));
        assert_eq!(of(&names).len(), 30);
        let names = numbered(30, |it| format!("a{it}-b{it}"));
        assert_eq!(of(&names).len(), 30);
    }

    #[test]
    fn every_name_is_matched_by_what_stands_for_it() {
        let mut names = numbered(40, |it| format!("x-{}-{}", it % 3, it));
        names.extend(numbered(25, |it| format!("{it}.y-{}.z", it % 5)));
        let patterns: Vec<Pattern<Name>> = of(&names).iter().map(|it| Pattern::new(it).unwrap()).collect();
        for name in &names {
            assert!(patterns.iter().any(|it| it.matches(name)), "{name}: {patterns:?}");
        }
    }
}
