//! Why a step was made, or was not: the first thing that went into it and differs from the nearest earlier build, from the journal.

use std::collections::{BTreeMap, BTreeSet};

use store::Store;

use crate::Result;
use crate::journal::{self, Entry, Happened};
use crate::key::Fact;

/// What is known of why a step was made or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happened to it, the last time that anything did.
    pub entry: Entry,
    /// Why.
    pub reason: Reason,
}

/// Why a step was made, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No earlier build of a step of this name and builder is remembered.
    First,
    /// An earlier one was made from something else.
    Changed {
        /// The one that has most in common with it.
        nearest: Box<Entry>,
        /// What differs, the first thing first.
        changes: Vec<Change>,
    },
    /// The same had been made, and what it gave was gone from the store.
    Gone {
        /// When it was made before.
        nearest: Box<Entry>,
    },
    /// The same had failed before: it was tried again.
    Retried {
        /// When it failed.
        nearest: Box<Entry>,
    },
    /// Nothing was made: the same had been made under another name.
    Known {
        /// When and as what; none if the journal does not go back so far.
        source: Option<Box<Entry>>,
    },
}

/// Something that differs between two builds of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is called.
    pub label: String,
    /// What it was; none if it was not there.
    pub before: Option<Fact>,
    /// What it is.
    pub after: Option<Fact>,
}

/// Explains the last thing that happened to each step that is meant: by derivation path or file name, the first digits of its hash
/// (6 or more), or name.
pub fn explain(store: &Store, given: &str) -> Result<Vec<Explanation>> {
    let entries = journal::read_all(store)?;
    let given = given.strip_prefix("/nix/store/").unwrap_or(given);
    let fits = |entry: &Entry| {
        let base = entry.derivation.strip_prefix("/nix/store/").unwrap_or(&entry.derivation);
        base == given || entry.name == given || given.len() >= 6 && !given.contains('-') && base.starts_with(given)
    };
    let mut explained: BTreeMap<String, Explanation> = BTreeMap::new();
    let mut order = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if fits(entry) && !explained.contains_key(&entry.derivation) {
            let reason = reason(entry, &entries[at + 1..]);
            order.push(entry.derivation.clone());
            explained.insert(entry.derivation.clone(), Explanation { entry: entry.clone(), reason });
        }
    }
    Ok(order.into_iter().filter_map(|derivation| explained.remove(&derivation)).collect())
}

/// Explains the steps of these derivations, as far as they are remembered.
pub fn explain_all(store: &Store, derivations: &[String]) -> Result<Vec<Explanation>> {
    let entries = journal::read_all(store)?;
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        newest.entry(&entry.derivation).or_insert(at);
    }
    let explain = |derivation: &String| {
        let at = *newest.get(derivation.as_str())?;
        Some(Explanation { entry: entries[at].clone(), reason: reason(&entries[at], &entries[at + 1..]) })
    };
    Ok(derivations.iter().filter_map(explain).collect())
}

/// `earlier`: the newest first.
fn reason(entry: &Entry, earlier: &[Entry]) -> Reason {
    if entry.happened == Happened::Known {
        let source = earlier.iter().find(|other| other.key == entry.key && other.happened != Happened::Failed);
        return Reason::Known { source: source.cloned().map(Box::new) };
    }
    if let Some(same) = earlier.iter().find(|other| other.key == entry.key) {
        let nearest = Box::new(same.clone());
        return if same.happened == Happened::Failed { Reason::Retried { nearest } } else { Reason::Gone { nearest } };
    }
    let builder = |entry: &Entry| entry.facts.first().map(|fact| fact.value.clone());
    let family = |other: &&Entry| stem(&other.name) == stem(&entry.name) && builder(other) == builder(entry);
    let common = |other: &Entry| entry.facts.iter().filter(|fact| other.facts.contains(fact)).count();
    // Of equally near ones the newest.
    let nearest = earlier.iter().filter(family).rev().max_by_key(|other| (other.name == entry.name, common(other)));
    match nearest {
        Some(nearest) => {
            Reason::Changed { nearest: Box::new(nearest.clone()), changes: changes(&nearest.facts, &entry.facts) }
        }
        None => Reason::First,
    }
}

/// A name without the version at its end: `curl` of `curl-7.88.1`.
fn stem(name: &str) -> &str {
    let version =
        |at: &usize| name[*at..].starts_with('-') && name[*at + 1..].starts_with(|next: char| next.is_ascii_digit());
    name.char_indices().map(|(at, _)| at).find(version).map_or(name, |at| &name[..at])
}

fn changes(before: &[Fact], after: &[Fact]) -> Vec<Change> {
    let old: BTreeMap<&str, &Fact> = before.iter().map(|fact| (fact.label.as_str(), fact)).collect();
    let new: BTreeMap<&str, &Fact> = after.iter().map(|fact| (fact.label.as_str(), fact)).collect();
    let moved = moved(before, after);
    let is_moved = |fact: &&Fact| list(&fact.label).is_some_and(|list| moved.contains(&(list, fact.value.as_str())));
    let mut changes = Vec::new();
    for fact in after.iter().filter(|fact| !is_moved(fact)) {
        let known = old.get(fact.label.as_str()).filter(|known| !is_moved(known));
        if known.is_none_or(|known| known.value != fact.value) {
            let (before, after) = (known.map(|known| (*known).clone()), Some(fact.clone()));
            changes.push(Change { label: fact.label.clone(), before, after });
        }
    }
    for fact in before.iter().filter(|fact| !is_moved(fact)) {
        if new.get(fact.label.as_str()).is_none_or(&is_moved) {
            changes.push(Change { label: fact.label.clone(), before: Some(fact.clone()), after: None });
        }
    }
    changes
}

/// The list that a fact is an item of: `packages` of `packages[26]`.
fn list(label: &str) -> Option<&str> {
    label.strip_suffix(']')?.rsplit_once('[').map(|(list, _)| list)
}

/// Items that are in a list before and after, of lists that gained or lost some: these only moved up or down, and did not change.
fn moved<'a>(before: &'a [Fact], after: &'a [Fact]) -> BTreeSet<(&'a str, &'a str)> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut seen: [BTreeSet<(&str, &str)>; 2] = Default::default();
    for (side, facts) in [before, after].into_iter().enumerate() {
        for fact in facts {
            if let Some(list) = list(&fact.label) {
                counts.entry(list).or_default()[side] += 1;
                seen[side].insert((list, &fact.value));
            }
        }
    }
    let grown = |list: &str| counts.get(list).is_some_and(|[before, after]| before != after);
    seen[0].intersection(&seen[1]).filter(|(list, _)| grown(list)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: &str, happened: Happened, facts: &[(&str, &str)]) -> Entry {
        let facts = [("builder", "builtin:run")].iter().chain(facts);
        Entry {
            derivation: format!("/nix/store/{key}-{name}.drv"),
            name: name.to_owned(),
            key: key.to_owned(),
            happened,
            time: 0,
            took: 0,
            peak_memory: 0,
            facts: facts.map(|(label, value)| Fact::new(*label, *value)).collect(),
            outputs: BTreeMap::new(),
        }
    }

    #[test]
    fn the_nearest_build_says_what_changed() {
        let now = entry("tool-1.1", "c", Happened::Built, &[("script", "new"), ("layer", "x")]);
        let near = entry("tool-1.0", "b", Happened::Built, &[("script", "old"), ("layer", "x"), ("gone", "1")]);
        let far = entry("tool-1.0", "a", Happened::Built, &[("script", "older"), ("layer", "y")]);
        let other = entry("other", "d", Happened::Built, &[("script", "new"), ("layer", "x")]);
        let Reason::Changed { nearest, changes } = reason(&now, &[other, far, near.clone()]) else { panic!() };
        assert_eq!(*nearest, near);
        let labels: Vec<&str> = changes.iter().map(|change| change.label.as_str()).collect();
        assert_eq!(labels, ["script", "gone"]);
        assert_eq!(reason(&now, &[]), Reason::First);
    }

    #[test]
    fn what_moved_in_a_list_did_not_change() {
        let facts = |items: &[&str]| -> Vec<Fact> {
            let item = |(at, value): (usize, &&str)| Fact::new(format!("packages[{at}]"), *value);
            [Fact::new("builder", "b")].into_iter().chain(items.iter().enumerate().map(item)).collect()
        };
        let said = |before: &[&str], after: &[&str]| -> Vec<String> {
            let value = |fact: &Option<Fact>| fact.as_ref().map_or("nothing".to_owned(), |fact| fact.value.clone());
            let changes = changes(&facts(before), &facts(after));
            changes.iter().map(|it| format!("{} {} {}", it.label, value(&it.before), value(&it.after))).collect()
        };
        assert_eq!(said(&["a", "b", "c", "d"], &["a", "c", "d"]), ["packages[1] b nothing"]);
        assert_eq!(said(&["a", "c", "d"], &["a", "b", "c", "d"]), ["packages[1] nothing b"]);
        assert_eq!(said(&["a", "c1", "d"], &["a", "b", "c2", "d"]), ["packages[1] c1 b", "packages[2] nothing c2"]);
        // Another version in its place, and another order.
        assert_eq!(said(&["a", "b1", "c"], &["a", "b2", "c"]), ["packages[1] b1 b2"]);
        assert_eq!(said(&["a", "b"], &["b", "a"]), ["packages[0] a b", "packages[1] b a"]);
    }

    #[test]
    fn the_same_key_was_gone_failed_or_known() {
        let built = entry("a", "k", Happened::Built, &[]);
        let failed = entry("a", "k", Happened::Failed, &[]);
        let known = entry("b", "k", Happened::Known, &[]);
        assert!(matches!(reason(&built, std::slice::from_ref(&built)), Reason::Gone { .. }));
        assert!(matches!(reason(&built, std::slice::from_ref(&failed)), Reason::Retried { .. }));
        assert_eq!(reason(&known, &[failed, built.clone()]), Reason::Known { source: Some(Box::new(built)) });
        assert_eq!(reason(&known, &[]), Reason::Known { source: None });
    }

    #[test]
    fn a_name_has_a_stem() {
        for (name, expected) in
            [("curl-7.88", "curl"), ("python3.11-3.11.2-6", "python3.11"), ("a-b", "a-b"), ("é-1", "é")]
        {
            assert_eq!(stem(name), expected);
        }
    }
}
