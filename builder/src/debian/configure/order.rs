//! In which order packages are configured: one that follows from their control files alone.
//!
//! As when a system is set up by hand, the essential packages and what they depend on come first, because everyone may use them
//! without saying so (policy 3.8). Before a package's preinst, what it pre-depends on is configured (policy 7.2).

use std::collections::{BTreeMap, BTreeSet};

use super::{ANSWERS, Package};
use crate::debian::control::{Alternatives, Control};

/// What there is to do, a line a thing, for `script.sh`. `late`: packages with files that their preinst makes room for.
/// `triggers`: what is activated at the end.
pub fn plan(packages: &[Package], late: &BTreeSet<usize>, triggers: &[String]) -> String {
    Plan::new(packages, late).write(triggers)
}

/// The essential packages and all they depend on, in the order in which they are configured.
pub fn essential(packages: &[Package]) -> Vec<usize> {
    let late = BTreeSet::new();
    let plan = Plan::new(packages, &late);
    plan.closure(&plan.essential())
}

struct Plan<'a> {
    packages: &'a [Package],
    late: &'a BTreeSet<usize>,
    /// Indices of packages that have a name or provide it, sorted by name.
    providers: BTreeMap<&'a str, Vec<usize>>,
    /// `DPKG_RUNNING_VERSION`.
    dpkg: &'a str,
    installed: BTreeSet<usize>,
    configured: BTreeSet<usize>,
    lines: String,
}

impl<'a> Plan<'a> {
    fn new(packages: &'a [Package], late: &'a BTreeSet<usize>) -> Self {
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in by_name(packages) {
            let control = &packages[index].control;
            for name in std::iter::once(&control.package).chain(&control.provides) {
                providers.entry(name).or_default().push(index);
            }
        }
        let dpkg = packages.iter().find(|package| package.control.package == "dpkg");
        let dpkg = dpkg.map_or("1.21.22", |package| package.control.version.as_str());
        let configured: BTreeSet<usize> = (0..packages.len()).filter(|index| packages[*index].configured).collect();
        Self { packages, late, providers, dpkg, installed: configured.clone(), configured, lines: String::new() }
    }

    fn write(mut self, triggers: &[String]) -> String {
        // Others' scripts look for root's name, and nobody has brought it yet. debootstrap begins with it for the same reason.
        let passwd =
            by_name(self.packages).into_iter().find(|index| self.packages[*index].control.package == "base-passwd");
        passwd.into_iter().for_each(|index| self.preinst(index));
        self.configure(&self.essential());
        for [package, question, kind, value] in ANSWERS {
            if self.packages.iter().any(|known| known.control.package == *package && !known.configured) {
                self.line(&format!("answer {package} {question} {kind} {value}"));
            }
        }
        // A database is state, and what would be made for one here is a password that everybody would share.
        for index in by_name(self.packages) {
            let Control { package, depends, .. } = &self.packages[index].control;
            let wants_database = depends.iter().flatten().any(|relation| relation.package.starts_with("dbconfig-"));
            if wants_database && !package.starts_with("dbconfig-") {
                self.line(&format!("answer {package} {package}/dbconfig-install boolean false"));
            }
        }
        for index in self.closure(&by_name(self.packages)) {
            if self.packages[index].preinst.is_some() {
                let wanted = self.dependencies(&self.packages[index].control.pre_depends);
                self.configure(&wanted);
            }
            self.preinst(index);
        }
        self.line("finish");
        triggers.iter().for_each(|trigger| self.line(&format!("trigger {trigger}")));
        self.line("finish");
        self.lines
    }

    fn essential(&self) -> Vec<usize> {
        by_name(self.packages).into_iter().filter(|index| self.packages[*index].control.essential).collect()
    }

    fn line(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    /// Configures these and all they depend on.
    fn configure(&mut self, wanted: &[usize]) {
        let closure = self.closure(wanted);
        let missing: Vec<usize> = closure.into_iter().filter(|index| !self.configured.contains(index)).collect();
        missing.iter().for_each(|index| self.preinst(*index));
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|index| self.packages[*index].control.qualified()).collect();
            self.line(&format!("configure {}", names.join(" ")));
            self.configured.extend(missing);
        }
    }

    fn preinst(&mut self, index: usize) {
        let package = &self.packages[index];
        if !self.installed.insert(index) || package.preinst.is_none() {
            return;
        }
        let control = &package.control;
        let (name, architecture, script) = (&control.package, &control.architecture, control.info("preinst"));
        self.line(&format!("preinst {name} {architecture} /{script} {}", self.dpkg));
        if self.late.contains(&index) {
            self.line(&format!("late {name}"));
        }
    }

    /// These and all they depend on, each after what it depends on where there is no cycle.
    fn closure(&self, wanted: &[usize]) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        // Of a package on the stack: itself, and which of its dependencies come next. Chains are long; the stack is ours.
        let mut stack: Vec<(usize, std::vec::IntoIter<usize>)> = Vec::new();
        for index in wanted {
            let mut next = Some(*index);
            loop {
                if let Some(index) = next.filter(|index| seen.insert(*index)) {
                    let control = &self.packages[index].control;
                    let mut dependencies = self.dependencies(&control.pre_depends);
                    dependencies.extend(self.dependencies(&control.depends));
                    stack.push((index, dependencies.into_iter()));
                }
                let Some((index, dependencies)) = stack.last_mut() else { break };
                next = dependencies.next();
                if next.is_none() {
                    order.push(*index);
                    stack.pop();
                }
            }
        }
        order
    }

    /// Whatever meets any of the alternatives and is here.
    fn dependencies(&self, clauses: &[Alternatives]) -> Vec<usize> {
        let relations = clauses.iter().flatten();
        relations.filter_map(|relation| self.providers.get(relation.package.as_str())).flatten().copied().collect()
    }
}

fn by_name(packages: &[Package]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..packages.len()).collect();
    indices.sort_unstable_by_key(|index| packages[*index].control.qualified());
    indices
}
