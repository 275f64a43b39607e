//! All packages that a system may be made of, and who stands for whom.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::index::Package;
use super::relation::{self, Relation};
use super::version;

/// A package's place in [`Universe::packages`].
pub type Place = u32;

/// The packages of some suites, for one architecture.
pub struct Universe<'a> {
    /// Every package that may be had.
    pub packages: Vec<Package<'a>>,
    /// For which architecture, as Debian names it.
    pub architecture: &'a str,
    /// By name, newest first.
    named: HashMap<&'a str, Vec<Place>>,
    /// Who provides a name, and as which version of it.
    providers: HashMap<&'a str, Vec<(Place, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// Of one version of a package that several suites list, the first is kept.
    pub fn new(packages: impl IntoIterator<Item = Package<'a>>, architecture: &'a str) -> Self {
        let mut universe =
            Self { packages: Vec::new(), architecture, named: HashMap::new(), providers: HashMap::new() };
        let mut seen = HashSet::new();
        for package in packages {
            let fits = package.architecture == architecture || package.architecture == "all";
            if !fits || !seen.insert((package.name, package.version)) {
                continue;
            }
            let place = universe.packages.len() as Place;
            universe.named.entry(package.name).or_default().push(place);
            for provided in relation::list(package.provides) {
                let version = provided.bound.map(|(_, version)| version);
                universe.providers.entry(provided.name).or_default().push((place, version));
            }
            universe.packages.push(package);
        }
        let packages = &universe.packages;
        for places in universe.named.values_mut() {
            let of = |place: Place| packages[place as usize].version;
            places.sort_by(|one, other| version::compare(of(*other), of(*one)));
        }
        universe
    }

    /// A package.
    pub fn package(&self, place: Place) -> &Package<'a> {
        &self.packages[place as usize]
    }

    /// The packages of a name, newest first.
    pub fn named(&self, name: &str) -> &[Place] {
        self.named.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every name of a real package.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.named.keys().copied()
    }

    /// The packages that a relation is about: those of its name, then those that provide it, preferred first, each list newest first.
    ///
    /// A bound is kept by a provider that says which version it provides, and by no other (Debian policy, section 7.5).
    pub fn matching(&self, relation: &Relation<'_>) -> Vec<(&'a str, Vec<Place>)> {
        if !relation.is_for(self.architecture) {
            return Vec::new();
        }
        let mut found: Vec<(&'a str, Vec<Place>)> = Vec::new();
        let real: Vec<Place> =
            self.named(relation.name).iter().copied().filter(|place| self.admits(relation, *place)).collect();
        if let Some(first) = real.first() {
            found.push((self.package(*first).name, real));
        }
        let mut providers: BTreeMap<&'a str, Vec<Place>> = BTreeMap::new();
        for (place, provided) in self.providers.get(relation.name).into_iter().flatten() {
            let package = self.package(*place);
            let suits = match (relation.bound, provided) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(_), Some(version)) => relation.admits(version),
            };
            let qualified = relation.qualifier != Some("any") || package.multi_arch == "allowed";
            if suits && qualified && package.name != relation.name {
                providers.entry(package.name).or_default().push(*place);
            }
        }
        let mut providers: Vec<_> = providers.into_iter().collect();
        for (name, places) in &mut providers {
            let order = self.named(name);
            places.sort_by_key(|place| order.iter().position(|known| known == place));
            places.dedup();
        }
        // As apt: what every system has, then by priority.
        providers.sort_by_key(|(name, places)| {
            let package = self.package(places[0]);
            (!package.essential, package.priority, *name)
        });
        found.extend(providers);
        found
    }

    fn admits(&self, relation: &Relation<'_>, place: Place) -> bool {
        let package = self.package(place);
        relation.admits(package.version) && (relation.qualifier != Some("any") || package.multi_arch == "allowed")
    }

    /// The names that every system has, sorted.
    pub fn essential(&self) -> Vec<&'a str> {
        let newest = self.named.values().filter_map(|places| places.first()).map(|place| self.package(*place));
        let mut names: Vec<_> = newest.filter(|package| package.essential).map(|package| package.name).collect();
        names.sort_unstable();
        names
    }

    /// Names like a name that is none, best first.
    pub fn near(&self, name: &str) -> Vec<String> {
        const MOST: usize = 5;
        let furthest = (name.len() / 4).clamp(1, 3);
        let mut near: Vec<(usize, usize, &str)> = Vec::new();
        for known in self.names() {
            let distance = distance(name, known, furthest);
            if distance <= furthest {
                near.push((distance, known.len(), known));
            } else if name.len() >= 3 && known.len() > name.len() && known.starts_with(name) {
                near.push((furthest + 1, known.len(), known));
            }
        }
        near.sort_unstable();
        near.into_iter().take(MOST).map(|(_, _, name)| name.to_owned()).collect()
    }
}

/// How many letters must be put in, taken out, changed, or swapped with the next; anything above `most` if it is more than that.
fn distance(one: &str, other: &str, most: usize) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len().abs_diff(other.len()) > most {
        return most + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let mut cost =
                (above[column + 1] + 1).min(current[column] + 1).min(above[column] + usize::from(letter != wanted));
            if row > 0 && column > 0 && one[row - 1] == *wanted && *letter == other[column - 1] {
                cost = cost.min(before[column - 1] + 1);
            }
            current.push(cost);
        }
        if current.iter().all(|cost| *cost > most) {
            return most + 1;
        }
        before = std::mem::replace(&mut above, current);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted() {
        for (one, other, expected) in [
            ("python3", "python3", 0),
            ("pyhton3", "python3", 1),
            ("numpy", "nmpy", 1),
            ("git", "gti", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(one, other, 3), expected, "{one} {other}");
        }
        assert!(distance("libfoo", "completely", 3) > 3);
    }
}
