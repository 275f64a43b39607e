//! Why something is in a formation: the layer and the package that brought it, who needs that package, and the steps that lead to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use store::directory::{Claim, LayerRecord, Record, StepRecord};
use store::{DeltaId, FormationId, Name, Node, Store, StorePath, TreeId, paragraph};

use crate::{Result, nix};

/// Why something is in a formation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// `file`, `package`, `step` or `store path`.
    pub kind: &'static str,
    /// What it is called in full.
    pub name: String,
    /// The package that it is, or that has it: name and version.
    pub package: Option<(String, String)>,
    /// Packages, each of which needs the next; the last is the package itself. The first was asked for, or comes with every system.
    pub needed_by: Vec<String>,
    /// Store paths, each of which refers to the next; the last is the one that was asked about.
    pub referred_by: Vec<String>,
    /// The layers that have it, the topmost first.
    pub layers: Vec<LayerRecord>,
    /// Derivations from the layer's own down to the step.
    pub steps: Vec<String>,
}

/// So much of a package manager's list is read.
const LONGEST: u64 = 64 << 20;

/// Finds out why a formation has something; none if it has not.
pub fn why(store: &Store, id: FormationId, thing: &str) -> Result<Option<Answer>> {
    let (formation, record) = (store.formation(id)?, store.record(id)?);
    let asked = Asked { store, root: formation.root, record: &record };
    if StorePath::parse(thing).is_some()
        && !thing.ends_with(".drv")
        && let Some(answer) = asked.store_path(thing)?
    {
        return Ok(Some(answer));
    }
    if thing.starts_with('/') && !thing.ends_with(".drv") {
        return asked.file(thing);
    }
    match asked.package(thing)? {
        Some(answer) => Ok(Some(answer)),
        None => asked.step(thing),
    }
}

struct Asked<'a> {
    store: &'a Store,
    root: TreeId,
    record: &'a Record,
}

impl Asked<'_> {
    fn file(&self, path: &str) -> Result<Option<Answer>> {
        let Some(whole) = self.follow(path.as_bytes())? else { return Ok(None) };
        let name = format!("/{}", String::from_utf8_lossy(&whole.join(&b'/')));
        let mut answer = Answer { kind: "file", name: name.clone(), ..Answer::default() };
        answer.layers = self.layers_with(&whole)?;
        if let Some((package, version)) = self.package_of(&name)? {
            answer.needed_by = self.chain(&package)?;
            answer.package = Some((package, version));
        }
        answer.steps = self.steps_of(&answer)?;
        Ok(Some(answer))
    }

    fn package(&self, name: &str) -> Result<Option<Answer>> {
        let packages = self.store.packages(self.root)?;
        let Some(found) = packages.into_iter().find(|package| package.name.eq_ignore_ascii_case(name)) else {
            return Ok(None);
        };
        let mut answer = Answer { kind: "package", name: found.name.clone(), ..Answer::default() };
        answer.needed_by = self.chain(&found.name)?;
        answer.package = Some((found.name.clone(), found.version.clone()));
        // What tells that it is there is in the layer that brought it.
        for path in [
            format!("var/lib/dpkg/info/{}.list", found.name),
            format!("var/lib/dpkg/info/{}:amd64.list", found.name),
            format!("var/lib/dpkg/info/{}:arm64.list", found.name),
        ] {
            let whole: Vec<Vec<u8>> = path.split('/').map(|part| part.as_bytes().to_vec()).collect();
            if answer.layers.is_empty() {
                answer.layers = self.layers_with(&whole)?;
            }
        }
        answer.steps = self.path_to(|step| {
            let made = step_name(&step.derivation);
            made == format!("{}-{}", found.name, store_name(&found.version)) || made == found.name
        });
        Ok(Some(answer))
    }

    fn step(&self, name: &str) -> Result<Option<Answer>> {
        let steps = self.path_to(|step| {
            let base = step.derivation.strip_prefix("/nix/store/").unwrap_or(&step.derivation);
            step.derivation == name
                || step_name(&step.derivation) == name
                || name.len() >= 6 && !name.contains('-') && base.starts_with(name)
        });
        let Some(last) = steps.last() else { return Ok(None) };
        Ok(Some(Answer { kind: "step", name: last.clone(), steps, ..Answer::default() }))
    }

    fn store_path(&self, path: &str) -> Result<Option<Answer>> {
        let whole: Vec<Vec<u8>> = path.split('/').skip(1).map(|part| part.as_bytes().to_vec()).collect();
        let layers = self.layers_with(&whole)?;
        if layers.is_empty() {
            return Ok(None);
        }
        let wanted = StorePath::parse(path);
        // Whatever nothing refers to is where the way begins.
        let mut references: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some(Node::Directory(id)) = self.store.look(self.root, b"/nix/store")? {
            for name in self.store.tree(id)?.entries.keys() {
                let text = format!("/nix/store/{}", String::from_utf8_lossy(name.as_bytes()));
                let Some(parsed) = StorePath::parse(&text) else { continue };
                let found = nix::info::read(self.store, &parsed)?;
                let referred = found.map(|found| found.references.iter().map(StorePath::to_string).collect());
                references.insert(text, referred.unwrap_or_default());
            }
        }
        let referred_by = wanted.map(|wanted| shortest(&references, wanted.as_str())).unwrap_or_default();
        let steps = self.path_to(|step| {
            let made = step_name(&step.derivation);
            path.get(44..).is_some_and(|name| name == made)
        });
        Ok(Some(Answer { kind: "store path", name: path.to_owned(), referred_by, layers, steps, ..Answer::default() }))
    }

    /// The way to a path without symbolic links in it; the last name may be one.
    fn follow(&self, path: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|byte| *byte == b'/')
                .filter(|part| !part.is_empty() && *part != b".")
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut waiting: VecDeque<Vec<u8>> = parts(path).into();
        let (mut whole, mut trees, mut links) = (Vec::<Vec<u8>>::new(), vec![self.root], 0);
        while let Some(part) = waiting.pop_front() {
            if part == b".." {
                whole.pop();
                trees.truncate(trees.len().saturating_sub(1).max(1));
                continue;
            }
            let Ok(name) = Name::new(&part[..]) else { return Ok(None) };
            let here = *trees.last().expect("the root stays");
            match self.store.tree(here)?.entries.get(&name) {
                None => return Ok(None),
                Some(Node::Directory(id)) => {
                    trees.push(*id);
                    whole.push(part);
                }
                Some(Node::Symlink { target, .. }) if !waiting.is_empty() && links < 40 => {
                    links += 1;
                    if target.starts_with(b"/") {
                        whole.clear();
                        trees.truncate(1);
                    }
                    for part in parts(target).into_iter().rev() {
                        waiting.push_front(part);
                    }
                }
                Some(_) if waiting.is_empty() => whole.push(part),
                Some(_) => return Ok(None),
            }
        }
        Ok(Some(whole))
    }

    /// The layers in which a path is, the topmost first.
    fn layers_with(&self, path: &[Vec<u8>]) -> Result<Vec<LayerRecord>> {
        let mut found = Vec::new();
        for layer in self.record.layers.iter().rev() {
            let Ok(delta) = layer.delta.parse::<DeltaId>() else { continue };
            // Its record may tell of what is no longer here.
            let Ok(delta) = self.store.delta(delta) else { continue };
            let mut here = Some(Node::Directory(delta.tree));
            for part in path {
                here = match (here, Name::new(&part[..])) {
                    (Some(Node::Directory(id)), Ok(name)) => self.store.tree(id)?.entries.get(&name).cloned(),
                    _ => None,
                };
            }
            if here.is_some() {
                found.push(layer.clone());
            }
        }
        Ok(found)
    }

    /// The Debian package that has a file, by dpkg's own lists.
    fn package_of(&self, file: &str) -> Result<Option<(String, String)>> {
        let Some(Node::Directory(id)) = self.store.look(self.root, b"/var/lib/dpkg/info")? else { return Ok(None) };
        // On a system whose /bin is a link into /usr, packages may still name it by the old path.
        let old = file.strip_prefix("/usr").filter(|rest| {
            ["/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/"].iter().any(|directory| rest.starts_with(directory))
        });
        for (name, node) in &self.store.tree(id)?.entries {
            let (Some(package), Node::File(list)) = (name.as_bytes().strip_suffix(b".list"), node) else { continue };
            if list.size > LONGEST {
                continue;
            }
            let text = self.store.blob(list.blob)?;
            let has = text
                .split(|byte| *byte == b'\n')
                .any(|line| line == file.as_bytes() || old.is_some_and(|old| line == old.as_bytes()));
            if has {
                let package = String::from_utf8_lossy(package).into_owned();
                let package = package.split(':').next().unwrap_or_default().to_owned();
                let version = self.status()?.remove(&package).map(|entry| entry.version).unwrap_or_default();
                return Ok(Some((package, version)));
            }
        }
        Ok(None)
    }

    /// What dpkg knows of installed packages.
    fn status(&self) -> Result<BTreeMap<String, Installed>> {
        let text = self.store.content_at(self.root, b"/var/lib/dpkg/status", LONGEST)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut packages = BTreeMap::new();
        for paragraph in paragraph::paragraphs(&text) {
            let field = |name: &str| paragraph::field(paragraph, name).map(paragraph::unfold);
            let Some(name) = field("Package") else { continue };
            let mut needs = Vec::new();
            for relation in ["Pre-Depends", "Depends"] {
                for alternatives in field(relation).unwrap_or_default().split(',') {
                    for one in alternatives.split('|') {
                        let word = one.trim().split([' ', ':', '(']).next().unwrap_or_default();
                        needs.extend((!word.is_empty()).then(|| word.to_owned()));
                    }
                }
            }
            let gives = field("Provides").unwrap_or_default();
            let gives = gives.split(',').filter_map(|one| one.trim().split([' ', '(']).next().map(str::to_owned));
            let version = field("Version").unwrap_or_default();
            packages.insert(name, Installed { version, needs, gives: gives.collect() });
        }
        Ok(packages)
    }

    /// The shortest way to a Debian package from one that no other needs.
    fn chain(&self, package: &str) -> Result<Vec<String>> {
        let installed = self.status()?;
        let mut who: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, entry) in &installed {
            for given in std::iter::once(name).chain(&entry.gives) {
                who.entry(given).or_default().push(name);
            }
        }
        let needs = installed.iter().map(|(name, entry)| {
            let needed = entry.needs.iter().flat_map(|need| who.get(need.as_str()).into_iter().flatten());
            (name.clone(), needed.map(|name| (*name).to_owned()).collect())
        });
        Ok(shortest(&needs.collect(), package))
    }

    fn steps_of(&self, answer: &Answer) -> Result<Vec<String>> {
        if let Some((package, version)) = &answer.package {
            let wanted = format!("{package}-{}", store_name(version));
            let steps = self.path_to(|step| step_name(&step.derivation) == wanted);
            if !steps.is_empty() {
                return Ok(steps);
            }
        }
        let Some(layer) = answer.layers.first() else { return Ok(Vec::new()) };
        for step in &self.record.steps {
            let Some(path) = StorePath::parse(&step.derivation) else { continue };
            if let Some(Claim::Delta(delta)) = self.store.claim_of_output(&path, "out")?
                && delta.to_string() == layer.delta
            {
                return Ok(vec![step.derivation.clone()]);
            }
        }
        Ok(Vec::new())
    }

    /// The shortest way down to the first step that fits, from one that no other uses.
    fn path_to(&self, fits: impl Fn(&StepRecord) -> bool) -> Vec<String> {
        let Some(wanted) = self.record.steps.iter().find(|step| fits(step)) else { return Vec::new() };
        let steps = self.record.steps.iter().map(|step| (step.derivation.clone(), step.inputs.clone()));
        shortest(&steps.collect(), &wanted.derivation)
    }
}

struct Installed {
    version: String,
    needs: Vec<String>,
    gives: Vec<String>,
}

/// The shortest way along `needs` to `wanted` from something that nothing else needs; only `wanted` itself if there is none.
fn shortest(needs: &BTreeMap<String, Vec<String>>, wanted: &str) -> Vec<String> {
    let needed: BTreeSet<&str> = needs
        .iter()
        .flat_map(|(name, needs)| needs.iter().filter(move |need| *need != name).map(String::as_str))
        .collect();
    let tops: Vec<&str> = needs.keys().map(String::as_str).filter(|name| !needed.contains(name)).collect();
    let mut from: BTreeMap<&str, Option<&str>> = tops.iter().map(|top| (*top, None)).collect();
    let mut open: VecDeque<&str> = tops.into();
    while let Some(name) = open.pop_front() {
        if name == wanted {
            let mut way = vec![name.to_owned()];
            let mut here = name;
            while let Some(Some(before)) = from.get(here) {
                way.push((*before).to_owned());
                here = before;
            }
            way.reverse();
            return way;
        }
        for next in needs.get(name).into_iter().flatten() {
            if !from.contains_key(next.as_str()) {
                from.insert(next, Some(name));
                open.push_back(next);
            }
        }
    }
    vec![wanted.to_owned()]
}

/// The name of the step with this derivation.
pub fn step_name(derivation: &str) -> &str {
    let base = derivation.rsplit('/').next().unwrap_or_default();
    let name = base.get(33..).unwrap_or(base);
    name.strip_suffix(".drv").unwrap_or(name)
}

/// As `storeName` of the library writes versions.
fn store_name(version: &str) -> String {
    version.replace(['~', ':', '%', '!', '@', ' ', '/'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_begins_where_nothing_needs_it() {
        let graph = |edges: &[(&str, &[&str])]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            edges.iter().map(|(name, needs)| ((*name).to_owned(), owned(needs))).collect::<BTreeMap<_, _>>()
        };
        let needs = graph(&[
            ("app", &["lib", "tool"]),
            ("tool", &["deep"]),
            ("lib", &["mid"]),
            ("mid", &["deep"]),
            ("deep", &[]),
        ]);
        assert_eq!(shortest(&needs, "deep"), ["app", "tool", "deep"]);
        assert_eq!(shortest(&needs, "app"), ["app"]);
        // Two that need each other are needed by nobody else.
        let circle = graph(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(shortest(&circle, "b"), ["b"]);
        assert_eq!(step_name("/nix/store/00000000000000000000000000000000-debian-bookworm.drv"), "debian-bookworm");
    }
}
