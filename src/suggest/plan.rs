//! Overrides for what was seen: the narrowest that a policy has room for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Easing, Occurrences,
    log::{InNamespace, Leases},
    shapes,
};

/// One override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it changes.
    pub easing: Easing,
    /// The namespaces that it matches, or patterns of them.
    pub namespaces: Vec<String>,
    /// The names that it matches, or patterns of them; empty: any.
    pub names: Vec<String>,
    /// How many leases were seen.
    pub leases: usize,
    /// Whether there were more, for those of a namespace are no longer told apart.
    pub more_leases: bool,
    /// How often, by whom and since when.
    pub seen: Occurrences,
    /// How it is wider than what was seen.
    pub widening: Widening,
}

/// How an override matches more than the leases that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Widening {
    /// Not at all.
    None,
    /// By patterns of names, each for ten names or more.
    NamePatterns,
    /// Whole namespaces, for want of room in the policy.
    Namespaces,
    /// Namespaces by patterns, for want of room.
    NamespacePatterns,
    /// Every namespace, for want of room.
    Everywhere,
}

/// How much a policy may have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) overrides: usize,
    pub(super) patterns: usize,
}

/// How the bounds of durations are stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// For each lease by what was seen of it.
    Each,
    /// For all leases by the shortest and the longest that was seen.
    Loosest,
    /// Not at all: `action: warn` answers every duration.
    Action,
}

/// What was seen of one namespace, by one easing.
#[derive(Clone, Debug)]
struct Group {
    namespace: String,
    /// Names and patterns of them; empty: any.
    names: Vec<String>,
    leases: usize,
    more_leases: bool,
    seen: Occurrences,
}

/// A lease by its name, or those of a whole namespace, and what was seen.
type Lease<'a> = (Option<&'a str>, &'a Occurrences);

type Groups = BTreeMap<Easing, Vec<Group>>;

/// The overrides for these leases. `None`: the policy has no room, not even for one a rule.
pub(super) fn entries(needed: &Leases, bounds: Bounds, room: Room) -> Option<Vec<Entry>> {
    let groups = groups(needed, bounds);
    let exact = joined(&groups, &BTreeSet::new());
    if fits(&exact, room) {
        return Some(exact);
    }
    let groups = match bounds {
        Bounds::Each => self::groups(needed, Bounds::Loosest),
        _ => groups,
    };
    // Those with the most names first: that gives the most room for the least.
    let mut largest: Vec<(Easing, &Group)> = groups
        .iter()
        .flat_map(|(easing, groups)| groups.iter().map(|group| (*easing, group)))
        .collect();
    largest.sort_by_key(|(_, group)| std::cmp::Reverse(group.names.len()));
    let widened = |count: usize| {
        let widened = largest
            .iter()
            .take(count)
            .map(|(easing, group)| (*easing, group.namespace.as_str()));
        joined(&groups, &widened.collect())
    };
    let counts: Vec<usize> = (0..=largest.len()).collect();
    let enough = counts.partition_point(|count| !fits(&widened(*count), room));
    if enough <= largest.len() {
        return Some(widened(enough));
    }
    let mut entries = widened(largest.len());
    for entry in &mut entries {
        let patterns = shapes::patterns(entry.namespaces.iter().map(String::as_str));
        if patterns.len() < entry.namespaces.len() {
            entry.namespaces = patterns.into_iter().collect();
            entry.widening = Widening::NamespacePatterns;
        }
    }
    while !fits(&entries, room) {
        let longest = entries.iter_mut().max_by_key(|entry| entry.namespaces.len())?;
        if longest.widening == Widening::Everywhere {
            return None;
        }
        longest.namespaces = vec!["*".to_owned()];
        longest.widening = Widening::Everywhere;
    }
    Some(entries)
}

fn fits(entries: &[Entry], room: Room) -> bool {
    let patterns: usize = entries
        .iter()
        .map(|entry| entry.namespaces.len() + entry.names.len())
        .sum();
    entries.len() <= room.overrides && patterns <= room.patterns
}

/// The leases by what answers them, and by namespace.
fn groups(needed: &Leases, bounds: Bounds) -> Groups {
    let mut groups: BTreeMap<Easing, BTreeMap<&str, Vec<Lease<'_>>>> = BTreeMap::new();
    for namespaces in needed.by_rule.values() {
        let each = namespaces.iter().flat_map(|(namespace, leases)| {
            let (names, whole) = match leases {
                InNamespace::Names(names) => (Some(names), None),
                InNamespace::Whole(seen) => (None, Some(seen)),
            };
            let names = names
                .into_iter()
                .flatten()
                .map(|(name, seen)| (Some(name.as_str()), seen));
            names
                .chain(whole.map(|seen| (None, seen)))
                .map(move |(name, seen)| (namespace.as_str(), name, seen))
        });
        let loosest = each
            .clone()
            .map(|(_, _, seen)| seen.easing)
            .filter(|easing| easing.moves_a_bound())
            .reduce(Easing::and);
        for (namespace, name, seen) in each {
            let easing = match (bounds, loosest) {
                (Bounds::Loosest, Some(loosest)) if seen.easing.moves_a_bound() => loosest,
                (Bounds::Action, Some(_)) if seen.easing.moves_a_bound() => seen.easing.by_action(),
                _ => seen.easing,
            };
            let leases = groups.entry(easing).or_default().entry(namespace).or_default();
            leases.push((name, &seen.occurrences));
        }
    }
    let group = |namespace: &str, leases: Vec<Lease<'_>>| {
        let mut seen = Occurrences::default();
        for (_, occurrences) in &leases {
            seen.merge((*occurrences).clone());
        }
        let whole = leases.iter().any(|(name, _)| name.is_none());
        let names = leases.iter().filter_map(|(name, _)| *name);
        Group {
            namespace: namespace.to_owned(),
            names: if whole {
                Vec::new()
            } else {
                shapes::patterns(names).into_iter().collect()
            },
            leases: leases.len(),
            more_leases: whole,
            seen,
        }
    };
    groups
        .into_iter()
        .map(|(easing, namespaces)| {
            let groups = namespaces
                .into_iter()
                .map(|(namespace, leases)| group(namespace, leases));
            (easing, groups.collect())
        })
        .collect()
}

/// One override for all namespaces in which the same names are answered by the same: it matches nothing more than one for
/// each of them. `widened`: where any name stands for those that were seen.
fn joined(groups: &Groups, widened: &BTreeSet<(Easing, &str)>) -> Vec<Entry> {
    let mut entries: BTreeMap<(Easing, Vec<String>), Entry> = BTreeMap::new();
    for (easing, group) in groups
        .iter()
        .flat_map(|(easing, groups)| groups.iter().map(|group| (*easing, group)))
    {
        let names = if widened.contains(&(easing, group.namespace.as_str())) {
            Vec::new()
        } else {
            group.names.clone()
        };
        let widening = if names.is_empty() {
            Widening::Namespaces
        } else if names.iter().any(|name| name.contains('*')) {
            Widening::NamePatterns
        } else {
            Widening::None
        };
        let entry = entries.entry((easing, names.clone())).or_insert_with(|| Entry {
            easing,
            namespaces: Vec::new(),
            names,
            leases: 0,
            more_leases: false,
            seen: Occurrences::default(),
            widening,
        });
        entry.namespaces.push(group.namespace.clone());
        entry.leases += group.leases;
        entry.more_leases |= group.more_leases;
        entry.seen.merge(group.seen.clone());
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    // The lowest override that matches counts: what is narrow stands below what is wide.
    entries.sort_by_key(|entry| (entry.easing.rule(), std::cmp::Reverse(entry.widening)));
    entries
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
