//! Which wheels a Python can use, and which of those is best (PEP 425, PEP 600).

use std::collections::HashMap;

use crate::python::PythonVersion;
use crate::{Error, Result};

/// What wheels are chosen for: CPython of a version on Linux with glibc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its Python.
    pub python: PythonVersion,
    /// `x86_64` or `aarch64`, as wheels write it.
    pub machine: &'static str,
    /// 36 of glibc 2.36.
    pub glibc_minor: u32,
}

impl Target {
    /// Reads the words of a lock request: `3.11`, `linux/amd64`, `2.36`.
    pub fn parse(python: &str, platform: &str, glibc: &str) -> Result<Self> {
        let bad =
            |what, name: &str, reason: &str| Error::Invalid { what, name: name.to_owned(), reason: reason.to_owned() };
        let machine = match platform {
            "linux/amd64" => "x86_64",
            "linux/arm64" => "aarch64",
            other => return Err(bad("platform", other, "`linux/amd64` or `linux/arm64` is expected")),
        };
        let glibc_minor =
            glibc.strip_prefix("2.").and_then(|minor| minor.parse().ok()).filter(|minor| (17..1000).contains(minor));
        let glibc_minor = glibc_minor.ok_or_else(|| bad("glibc version", glibc, "2.17 or later is expected"))?;
        Ok(Self { python: PythonVersion::parse(python)?, machine, glibc_minor })
    }

    /// Every tag that fits, best first.
    pub fn tags(&self) -> Tags {
        let Self { python: PythonVersion { major, minor }, machine, glibc_minor } = *self;
        let mut platforms = Vec::new();
        // PEP 600: manylinux began with glibc 2.5 on x86, and with 2.17 elsewhere.
        let oldest = if machine == "x86_64" { 5 } else { 17 };
        for glibc in (oldest..=glibc_minor).rev() {
            platforms.push(format!("manylinux_2_{glibc}_{machine}"));
            let older_name = match glibc {
                17 => Some("manylinux2014"),
                12 => Some("manylinux2010"),
                5 => Some("manylinux1"),
                _ => None,
            };
            platforms.extend(older_name.map(|name| format!("{name}_{machine}")));
        }
        platforms.push(format!("linux_{machine}"));
        let this = format!("cp{major}{minor}");
        let mut pairs =
            vec![(this.clone(), this.clone()), (this.clone(), "abi3".to_owned()), (this.clone(), "none".to_owned())];
        // The stable ABI began with 3.2, and a later Python keeps what an earlier one promised.
        pairs.extend((2..minor).rev().map(|earlier| (format!("cp{major}{earlier}"), "abi3".to_owned())));
        let mut generic = vec![format!("py{major}{minor}"), format!("py{major}")];
        generic.extend((0..minor).rev().map(|earlier| format!("py{major}{earlier}")));
        pairs.extend(generic.iter().map(|python| (python.clone(), "none".to_owned())));
        let mut tags: Vec<String> = pairs
            .iter()
            .flat_map(|(python, abi)| platforms.iter().map(move |platform| format!("{python}-{abi}-{platform}")))
            .collect();
        tags.push(format!("{this}-none-any"));
        tags.extend(generic.iter().map(|python| format!("{python}-none-any")));
        Tags { ranks: tags.into_iter().enumerate().map(|(rank, tag)| (tag, rank)).collect() }
    }

    /// The platform as `uv` names it: it knows glibc 2.17, 2.28, and 2.31 to 2.40.
    pub fn uv_platform(&self) -> String {
        let glibc = match self.glibc_minor {
            ..28 => 17,
            28..31 => 28,
            other => other.min(40),
        };
        format!("{}-manylinux_2_{glibc}", self.machine)
    }
}

/// Tags that fit, by how well.
pub struct Tags {
    ranks: HashMap<String, usize>,
}

impl Tags {
    /// How well a wheel fits, by its file name: the less the better; none if it does not fit.
    pub fn rank(&self, file: &str) -> Option<Rank> {
        let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
        let (build, [python, abi, platform]) = match parts.as_slice() {
            [_, _, tags @ ..] if tags.len() == 3 => ("", [tags[0], tags[1], tags[2]]),
            [_, _, build, tags @ ..] if tags.len() == 3 => (*build, [tags[0], tags[1], tags[2]]),
            _ => return None,
        };
        let mut best = None;
        for python in python.split('.') {
            for abi in abi.split('.') {
                for platform in platform.split('.') {
                    let rank = self.ranks.get(&format!("{python}-{abi}-{platform}")).copied();
                    best = [best, rank].into_iter().flatten().min();
                }
            }
        }
        // The binary distribution format: the build number begins with digits; the rest is compared as text.
        let digits: String = build.chars().take_while(char::is_ascii_digit).collect();
        let build = (digits.parse().unwrap_or(0u64), build[digits.len()..].to_owned());
        Some(Rank { tag: best?, build: std::cmp::Reverse(build) })
    }
}

/// How well a wheel fits: first by its tag, then the later build of the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    tag: usize,
    build: std::cmp::Reverse<(u64, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(files: &[&'a str]) -> Option<&'a str> {
        let tags = Target::parse("3.11", "linux/amd64", "2.36").unwrap().tags();
        let ranked = files.iter().filter_map(|file| Some((tags.rank(file)?, *file)));
        ranked.min().map(|(_, file)| file)
    }

    #[test]
    fn the_closest_wheel_is_best() {
        let files = [
            "a-1-py3-none-any.whl",
            "a-1-cp37-abi3-manylinux1_x86_64.manylinux_2_28_x86_64.manylinux_2_5_x86_64.whl",
            "a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
            "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "a-1-cp311-cp311-macosx_11_0_arm64.whl",
            "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        ];
        assert_eq!(best(&files), Some("a-1-cp311-cp311-manylinux_2_28_x86_64.whl"));
        assert_eq!(best(&files[..3]), Some("a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"));
        assert_eq!(best(&files[..2]), Some(files[1]));
        assert_eq!(best(&files[..1]), Some(files[0]));
        assert_eq!(best(&files[4..]), None);
    }

    #[test]
    fn later_builds_and_odd_names() {
        assert_eq!(best(&["a-1-2-py3-none-any.whl", "a-1-10-py3-none-any.whl"]), Some("a-1-10-py3-none-any.whl"));
        assert_eq!(best(&["a-1-py2.py3-none-any.whl"]), Some("a-1-py2.py3-none-any.whl"));
        for odd in ["", ".whl", "a.whl", "a-1-py3-none.whl", "a-1-py3-none-any.tar.gz", "a-1-1-1-py3-none-any.whl"] {
            assert_eq!(best(&[odd]), None, "{odd}");
        }
        assert_eq!(
            best(&["a-1-cp312-abi3-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311t-manylinux_2_17_x86_64.whl"]),
            None
        );
    }

    #[test]
    fn targets_are_checked() {
        let target = Target::parse("3.13", "linux/arm64", "2.41").unwrap();
        assert_eq!(target.uv_platform(), "aarch64-manylinux_2_40");
        assert_eq!(Target::parse("3.9", "linux/amd64", "2.28").unwrap().uv_platform(), "x86_64-manylinux_2_28");
        for (python, platform, glibc) in [
            ("3", "linux/amd64", "2.36"),
            ("3.11", "linux/riscv64", "2.36"),
            ("3.11", "linux/amd64", "3.0"),
            ("3.11", "linux/amd64", "2.x"),
        ] {
            assert!(Target::parse(python, platform, glibc).is_err());
        }
    }
}
