//! Which packages a wish stands for: all that they need, without conflicts, the newest first, and like apt the first alternative that
//! works.
//!
//! The search is `resolvo`'s. A virtual package is no package to it: a relation becomes a choice among the real ones that satisfy it,
//! in the order of preference. Everything here is a function of the indexes, so the same indexes give the same answer.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::rc::Rc;

use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver, SolverCache, StringId, UnsolvableOrCancelled,
    VersionSetId, VersionSetUnionId,
};

use super::relation::{self, Relation};
use super::universe::{Place, Universe};
use crate::{Builder, Error, Result};

/// Our roots are laid out with `/bin` and its like as links into `/usr` from the start. What asks for that (`usrmerge |
/// usr-is-merged`) is given the package that checks it, as debootstrap does, not the one that converts, and needs all of perl.
const USR_IS_MERGED: &str = "usr-is-merged";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Wishes<'a> {
    /// For messages: `Debian bookworm`.
    pub ecosystem: &'a str,
    /// `name`, `name=version`, `name (>= version)`.
    pub packages: &'a [String],
    /// Whether recommended packages come along where they can.
    pub recommends: bool,
    /// Whether every root's essential packages come along.
    pub essential: bool,
}

/// The packages of the smallest system that has what is wished, sorted by name.
pub fn solve(builder: &Builder<'_>, universe: &Universe<'_>, wishes: &Wishes<'_>) -> Result<Vec<Place>> {
    let mut groups: Vec<Vec<Relation<'_>>> = Vec::new();
    for name in universe.essential().into_iter().filter(|_| wishes.essential) {
        groups.push(vec![Relation { name, qualifier: None, bound: None }]);
    }
    // The order in which wishes are written says nothing.
    let texts: BTreeSet<String> = wishes.packages.iter().map(|wish| normalised(wish)).collect();
    for text in &texts {
        groups.push(vec![wish(universe, wishes.ecosystem, text)?]);
    }
    let mut found = solve_groups(builder, universe, wishes.ecosystem, &groups)?;
    if wishes.recommends {
        found = with_recommended(builder, universe, wishes.ecosystem, groups, found)?;
    }
    found.sort_by_key(|place| universe.package(*place).name);
    Ok(found)
}

/// Of packages that were found, the essential ones and whatever of the others could be meant by what these depend on.
pub fn essential(universe: &Universe<'_>, found: &[Place]) -> BTreeSet<Place> {
    let found: BTreeSet<Place> = found.iter().copied().collect();
    let mut open: Vec<Place> = found.iter().copied().filter(|place| universe.package(*place).essential).collect();
    let mut closure: BTreeSet<Place> = open.iter().copied().collect();
    while let Some(place) = open.pop() {
        let package = universe.package(place);
        for group in [package.pre_depends, package.depends].into_iter().flat_map(relation::groups) {
            let meant = group.iter().flat_map(|relation| universe.matching(relation)).flat_map(|(_, places)| places);
            open.extend(meant.filter(|place| found.contains(place) && closure.insert(*place)));
        }
    }
    closure
}

/// `name=version` as a relation is written.
fn normalised(wish: &str) -> String {
    match wish.split_once('=') {
        Some((name, version)) if !wish.contains('(') => format!("{} (= {})", name.trim(), version.trim()),
        _ => wish.trim().to_owned(),
    }
}

/// Reads a wish, and says what is wrong with it in better words than the solver could.
fn wish<'t>(universe: &Universe<'_>, ecosystem: &str, text: &'t str) -> Result<Relation<'t>> {
    let relation = Relation::parse(text).ok_or_else(|| Error::Invalid {
        what: "package wish",
        name: text.to_owned(),
        reason: "`name`, `name=version` or `name (>= version)` is expected".to_owned(),
    })?;
    let unsolvable = |explanation| Error::Unsolvable { ecosystem: ecosystem.to_owned(), explanation };
    let matching = universe.matching(&relation);
    let real = universe.named(relation.name);
    if real.is_empty() {
        let bare = Relation { bound: None, ..relation };
        let providers: Vec<&str> = universe.matching(&bare).into_iter().map(|(name, _)| name).collect();
        return match (providers.as_slice(), matching.as_slice()) {
            ([], _) => Err(Error::UnknownPackage {
                ecosystem: ecosystem.to_owned(),
                name: relation.name.to_owned(),
                near: universe.near(relation.name),
            }),
            ([_], [_]) => Ok(relation),
            (providers, _) => Err(unsolvable(format!(
                "`{relation}` is no package, but provided by {}: wish for one of them",
                listing(providers)
            ))),
        };
    }
    if matching.is_empty() {
        let versions: Vec<&str> = real.iter().map(|place| universe.package(*place).version).collect();
        let what = if versions.len() == 1 { "version" } else { "versions" };
        return Err(unsolvable(format!(
            "`{relation}` is not there: `{}` has {what} {}",
            relation.name,
            listing(&versions)
        )));
    }
    Ok(relation)
}

fn listing(names: &[&str]) -> String {
    const MOST: usize = 8;
    let mut text = names.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(&format!(" and {} more", names.len() - MOST));
    }
    text
}

/// Adds what is recommended and can be had, round by round, until nothing new is recommended.
fn with_recommended<'a>(
    builder: &Builder<'_>,
    universe: &'a Universe<'a>,
    ecosystem: &str,
    mut groups: Vec<Vec<Relation<'a>>>,
    mut found: Vec<Place>,
) -> Result<Vec<Place>> {
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let chosen: BTreeSet<Place> = found.iter().copied().collect();
        let mut fresh: Vec<Vec<Relation<'a>>> = Vec::new();
        for place in &chosen {
            for group in relation::groups(universe.package(*place).recommends) {
                let text = group_text(&group);
                let matching: Vec<Place> = group
                    .iter()
                    .flat_map(|relation| universe.matching(relation))
                    .flat_map(|(_, places)| places)
                    .collect();
                let met = matching.iter().any(|place| chosen.contains(place));
                if !met && !matching.is_empty() && !refused.contains(&text) {
                    fresh.push(group);
                }
            }
        }
        if fresh.is_empty() {
            return Ok(found);
        }
        let all = [groups.clone(), fresh.clone()].concat();
        match solve_groups(builder, universe, ecosystem, &all) {
            Ok(more) => (found, groups) = (more, all),
            Err(Error::Unsolvable { .. }) => {
                for group in fresh {
                    let one = [groups.clone(), vec![group.clone()]].concat();
                    match solve_groups(builder, universe, ecosystem, &one) {
                        Ok(more) => (found, groups) = (more, one),
                        Err(Error::Unsolvable { .. }) => _ = refused.insert(group_text(&group)),
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn group_text(group: &[Relation<'_>]) -> String {
    group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ")
}

fn solve_groups(
    builder: &Builder<'_>,
    universe: &Universe<'_>,
    ecosystem: &str,
    groups: &[Vec<Relation<'_>>],
) -> Result<Vec<Place>> {
    let provider = Provider { universe, builder, tables: RefCell::default() };
    let requirements = groups.iter().map(|group| provider.requirement(group)).collect();
    let mut solver = Solver::new(provider);
    match solver.solve(Problem::new().requirements(requirements)) {
        Ok(found) => Ok(found.into_iter().map(SolvableId::into_raw).collect()),
        Err(UnsolvableOrCancelled::Cancelled(_)) => {
            builder.check_interrupt()?;
            Err(Error::Unsolvable {
                ecosystem: ecosystem.to_owned(),
                explanation: "the search was given up".to_owned(),
            })
        }
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let explanation = conflict.display_user_friendly(&solver).to_string();
            Err(Error::Unsolvable { ecosystem: ecosystem.to_owned(), explanation: explanation.trim_end().to_owned() })
        }
    }
}

/// Some packages of one name, out of all that have it.
struct Set {
    name: NameId,
    /// What follows the name in a message.
    text: String,
    places: Vec<Place>,
}

/// What the solver knows by number.
#[derive(Default)]
struct Tables {
    names: Vec<String>,
    name_ids: HashMap<String, NameId>,
    sets: Vec<Rc<Set>>,
    set_ids: HashMap<(NameId, String, Vec<Place>), VersionSetId>,
    unions: Vec<Vec<VersionSetId>>,
}

/// Answers the solver's questions about the universe. A package's number is its place there.
struct Provider<'u> {
    universe: &'u Universe<'u>,
    builder: &'u Builder<'u>,
    tables: RefCell<Tables>,
}

impl Provider<'_> {
    fn name(&self, name: &str) -> NameId {
        let mut tables = self.tables.borrow_mut();
        if let Some(id) = tables.name_ids.get(name) {
            return *id;
        }
        let id = NameId::from_raw(tables.names.len() as u32);
        tables.names.push(name.to_owned());
        tables.name_ids.insert(name.to_owned(), id);
        id
    }

    fn set(&self, name: &str, text: String, places: Vec<Place>) -> VersionSetId {
        let name = self.name(name);
        let mut tables = self.tables.borrow_mut();
        let key = (name, text.clone(), places.clone());
        if let Some(id) = tables.set_ids.get(&key) {
            return *id;
        }
        let id = VersionSetId(tables.sets.len() as u32);
        tables.sets.push(Rc::new(Set { name, text, places }));
        tables.set_ids.insert(key, id);
        id
    }

    fn set_of(&self, id: VersionSetId) -> Rc<Set> {
        Rc::clone(&self.tables.borrow().sets[id.0 as usize])
    }

    /// Any of these relations will do, the first rather than the next.
    fn requirement(&self, group: &[Relation<'_>]) -> ConditionalRequirement {
        let mut sets = Vec::new();
        let (merged, others): (Vec<_>, Vec<_>) = group.iter().partition(|relation| relation.name == USR_IS_MERGED);
        for relation in merged.into_iter().chain(others) {
            for (name, places) in self.universe.matching(relation) {
                let text =
                    if name == relation.name { bound_text(relation) } else { format!("that provides {relation}") };
                sets.push(self.set(name, text, places));
            }
        }
        match sets.as_slice() {
            [] => {
                // Nothing satisfies it. The solver then says so by the name that was written first.
                let Some(relation) = group.first() else { return Requirement::default().into() };
                self.set(relation.name, bound_text(relation), Vec::new()).into()
            }
            [set] => (*set).into(),
            _ => {
                let mut tables = self.tables.borrow_mut();
                let id = VersionSetUnionId(tables.unions.len() as u32);
                tables.unions.push(sets);
                id.into()
            }
        }
    }

    /// What must not be there beside a package, as the sets that may be.
    fn constraints(&self, place: Place, field: &str, sets: &mut Vec<VersionSetId>) {
        let own = self.universe.package(place).name;
        for relation in relation::list(field) {
            for (name, forbidden) in self.universe.matching(&Relation { qualifier: None, ..relation }) {
                // A package that provides what it conflicts with wants to be the only one; it is not in its own way.
                if name != own {
                    let all = self.universe.named(name).iter();
                    let allowed = all.copied().filter(|place| !forbidden.contains(place)).collect();
                    sets.push(self.set(name, format!("other than {relation}"), allowed));
                }
            }
        }
    }
}

fn bound_text(relation: &Relation<'_>) -> String {
    relation.bound.map_or(String::new(), |(operator, version)| format!("{} {version}", operator.as_str()))
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        let package = self.universe.package(solvable.into_raw());
        format!("{} {}", package.name, package.version)
    }

    fn display_merged_solvables(&self, solvables: &[SolvableId]) -> impl Display + '_ {
        let packages: Vec<_> = solvables.iter().map(|solvable| self.universe.package(solvable.into_raw())).collect();
        let versions: BTreeSet<&str> = packages.iter().map(|package| package.version).collect();
        let name = packages.first().map_or("", |package| package.name);
        format!("{name} {}", versions.into_iter().collect::<Vec<_>>().join(" | "))
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.tables.borrow().names[name.into_raw() as usize].clone()
    }

    fn display_version_set(&self, version_set: VersionSetId) -> impl Display + '_ {
        self.set_of(version_set).text.clone()
    }

    fn display_string(&self, _: StringId) -> impl Display + '_ {
        // No dependencies are unknown to us, and no candidate is excluded: these are all that strings are for.
        ""
    }

    fn version_set_name(&self, version_set: VersionSetId) -> NameId {
        self.set_of(version_set).name
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.name(self.universe.package(solvable.into_raw()).name)
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.tables.borrow().unions[union.0 as usize].clone().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no requirement of ours has a condition")
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(&self, candidates: &[SolvableId], set: VersionSetId, inverse: bool) -> Vec<SolvableId> {
        let set = self.set_of(set);
        candidates.iter().copied().filter(|candidate| set.places.contains(&candidate.into_raw()) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = self.tables.borrow().names[name.into_raw() as usize].clone();
        let places = self.universe.named(&name);
        let candidates = places.iter().map(|place| SolvableId::from_raw(*place)).collect();
        Some(Candidates { candidates, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        // All are of one name, and the universe has them newest first.
        solvables.sort_by_key(|solvable| {
            let place = solvable.into_raw();
            self.universe.named(self.universe.package(place).name).iter().position(|known| *known == place)
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let place = solvable.into_raw();
        let package = self.universe.package(place);
        let mut known = KnownDependencies::default();
        for field in [package.pre_depends, package.depends] {
            known.requirements.extend(relation::groups(field).map(|group| self.requirement(&group)));
        }
        for field in [package.conflicts, package.breaks] {
            self.constraints(place, field, &mut known.constrains);
        }
        Dependencies::Known(known)
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        self.builder.check_interrupt().err().map(|_| Box::new(()) as Box<dyn Any>)
    }
}

#[cfg(test)]
mod tests;
