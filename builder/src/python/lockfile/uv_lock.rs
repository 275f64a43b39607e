//! `uv.lock`: from the project's own entry on, whatever its dependencies lead to on the target.

use std::collections::{BTreeMap, BTreeSet};

use super::{Choice, Pinned, bad};
use crate::Result;
use crate::python::index::file_name;

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Package {
    name: String,
    version: Option<String>,
    #[serde(default)]
    source: BTreeMap<String, toml::Value>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Vec<Dependency>>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Vec<Dependency>>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(serde::Deserialize)]
struct Dependency {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    #[serde(default)]
    extra: Vec<String>,
}

#[derive(serde::Deserialize)]
struct File {
    url: Option<String>,
    filename: Option<String>,
    path: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
}

impl Package {
    /// Whether it is a directory of the project rather than something of an index.
    fn is_local(&self) -> bool {
        ["virtual", "editable", "directory"].iter().any(|kind| self.source.contains_key(*kind))
    }

    fn is_root(&self) -> bool {
        ["virtual", "editable", "directory"]
            .iter()
            .any(|kind| self.source.get(*kind).and_then(toml::Value::as_str) == Some("."))
    }

    fn pinned(&self, name: &str) -> Result<Pinned> {
        let mut files = Vec::new();
        for file in self.wheels.iter().chain(&self.sdist) {
            let where_ = file.url.as_deref().or(file.path.as_deref()).unwrap_or_default();
            let Some(called) = file.filename.clone().or_else(|| file_name(where_)) else { continue };
            let hash = file.hash.as_deref().and_then(|hash| hash.strip_prefix("sha256:"));
            let hash = hash.ok_or_else(|| bad(name, format!("`{called}` has no SHA-256")))?;
            files.push((called, hash.to_owned(), file.size));
        }
        Ok(Pinned { name: self.name.clone(), version: self.version.clone().unwrap_or_default(), files })
    }
}

/// The packages that are installed, sorted by name.
pub fn pinned(name: &str, table: &toml::Table, choice: &Choice<'_>) -> Result<Vec<Pinned>> {
    if table.get("version").and_then(toml::Value::as_integer) != Some(1) {
        return Err(bad(name, "it is not of version 1"));
    }
    let packages = table.get("package").cloned().unwrap_or(toml::Value::Array(Vec::new()));
    let packages: Vec<Package> = packages.try_into().map_err(|error: toml::de::Error| bad(name, error.message()))?;
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        by_name.entry(package.name.as_str()).or_default().push(index);
    }
    let mut roots: Vec<usize> = (0..packages.len()).filter(|index| packages[*index].is_root()).collect();
    if roots.is_empty() {
        roots = (0..packages.len()).filter(|index| packages[*index].is_local()).collect();
    }
    if roots.is_empty() {
        return Err(bad(name, "it has no project to begin with"));
    }
    // A package, and one of its extras or none.
    let mut open: Vec<(usize, Option<String>)> = Vec::new();
    let follow = |open: &mut Vec<(usize, Option<String>)>, dependencies: &[Dependency], extras: &[String]| {
        for dependency in dependencies {
            if let Some(marker) = &dependency.marker
                && !choice.holds(name, marker, extras)?
            {
                continue;
            }
            let named = by_name.get(dependency.name.as_str()).map_or(&[][..], Vec::as_slice);
            let suits =
                |index: &&usize| dependency.version.is_none() || packages[**index].version == dependency.version;
            let found = *named
                .iter()
                .find(suits)
                .ok_or_else(|| bad(name, format!("it has no package `{}`", dependency.name)))?;
            open.push((found, None));
            open.extend(dependency.extra.iter().map(|extra| (found, Some(extra.clone()))));
        }
        Ok::<_, crate::Error>(())
    };
    for root in &roots {
        let package = &packages[*root];
        follow(&mut open, &package.dependencies, &choice.extras)?;
        for extra in &choice.extras {
            match package.optional_dependencies.get(extra) {
                Some(dependencies) => follow(&mut open, dependencies, &choice.extras)?,
                None => return Err(bad(name, format!("`{}` has no extra `{extra}`", package.name))),
            }
        }
        for group in &choice.groups {
            match package.dev_dependencies.get(group) {
                Some(dependencies) => follow(&mut open, dependencies, &choice.extras)?,
                None => return Err(bad(name, format!("`{}` has no group `{group}`", package.name))),
            }
        }
    }
    let mut seen: BTreeSet<(usize, Option<String>)> = BTreeSet::new();
    while let Some(next) = open.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let package = &packages[next.0];
        match &next.1 {
            None => follow(&mut open, &package.dependencies, &[])?,
            Some(extra) => {
                let dependencies = package.optional_dependencies.get(extra).map_or(&[][..], Vec::as_slice);
                follow(&mut open, dependencies, std::slice::from_ref(extra))?;
            }
        }
    }
    let installed: BTreeSet<usize> = seen.into_iter().map(|(index, _)| index).collect();
    let mut found = Vec::new();
    for index in installed {
        let package = &packages[index];
        if package.is_local() {
            continue;
        }
        if !package.source.contains_key("registry") {
            let kind = package.source.keys().next().map_or("nothing", String::as_str);
            return Err(bad(
                name,
                format!("`{}` comes from {kind}: only what an index has can be installed", package.name),
            ));
        }
        found.push(package.pinned(name)?);
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}
