//! Licences as packages write them, as SPDX writes them.

use std::collections::{BTreeMap, BTreeSet};

/// A licence in SPDX's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// A licence expression (SPDX 2.3, annex D): identifiers of the SPDX list, and `LicenseRef-…` for what is not in it.
    pub expression: String,
    /// The licences that are not in the list: each `LicenseRef-…` with what the package calls it.
    pub references: BTreeMap<String, String>,
}

/// What several licence texts of one package come to: all of them apply somewhere in it. None of none.
pub fn licence(texts: &[String]) -> Option<Licence> {
    let mut references = BTreeMap::new();
    let terms: BTreeSet<String> = texts.iter().flat_map(|text| terms(text, &mut references)).collect();
    let terms: Vec<String> = terms.into_iter().collect();
    (!terms.is_empty()).then(|| Licence { expression: joined(&terms), references })
}

/// Expressions that all apply.
fn joined(terms: &[String]) -> String {
    let whole = |text: &String| if text.contains(" OR ") { format!("({text})") } else { text.clone() };
    match terms {
        [only] => only.clone(),
        several => several.iter().map(whole).collect::<Vec<_>>().join(" AND "),
    }
}

/// One text, as expressions that all apply: an SPDX expression already, or names that Debian, Python and people use, joined by
/// `and` and `or`, of which the former binds more tightly unless a comma stands before it (DEP 5, "License syntax").
fn terms(text: &str, references: &mut BTreeMap<String, String>) -> Vec<String> {
    if spdx::Expression::parse(text).is_ok() {
        return vec![text.to_owned()];
    }
    let text = text.replace(", or ", " or ").replace(" / ", " or ");
    let mut all = Vec::new();
    for part in text.split(", and ") {
        let mut names = |group: &str| -> Vec<String> {
            group.split(" and ").map(|name| name_of(name.trim(), references)).collect()
        };
        match part.split(" or ").collect::<Vec<_>>().as_slice() {
            [group] => all.extend(names(group)),
            groups => all.push(groups.iter().map(|group| joined(&names(group))).collect::<Vec<_>>().join(" OR ")),
        }
    }
    all
}

/// One name.
fn name_of(name: &str, references: &mut BTreeMap<String, String>) -> String {
    let (plain, exception) = match name.split_once(" with ") {
        Some((plain, exception)) => (plain.trim(), Some(exception.trim().trim_end_matches(" exception"))),
        None => (name, None),
    };
    if let Some(known) = known(plain) {
        match exception
            .map(|exception| KNOWN_EXCEPTIONS.iter().find(|(theirs, _)| exception.eq_ignore_ascii_case(theirs)))
        {
            None => return known,
            Some(Some((_, exception))) => return format!("{known} WITH {exception}"),
            Some(None) => {}
        }
    }
    let mut reference = String::from("LicenseRef-");
    for character in name.chars().take(80) {
        let keeps = character.is_ascii_alphanumeric() || matches!(character, '.' | '-');
        reference.push(if keeps { character } else { '-' });
    }
    references.insert(reference.clone(), name.to_owned());
    reference
}

/// The SPDX identifier, with `or-later` where it is meant.
fn known(name: &str) -> Option<String> {
    let listed = |name: &str| {
        let mut all = spdx::identifiers::LICENSES.iter();
        all.find(|licence| licence.name.eq_ignore_ascii_case(name)).map(|licence| licence.name.to_owned())
    };
    let (base, later) = match name.strip_suffix('+') {
        Some(base) => (base, true),
        None => (name, false),
    };
    if let Some((_, theirs)) = ALIASES.iter().find(|(alias, _)| base.eq_ignore_ascii_case(alias)) {
        return Some((*theirs).to_owned());
    }
    // GPL-2, LGPL-2.1, GFDL-1.3: the list has `-only` and `-or-later` of each, with a minor version.
    if let Some((family, version)) = base.rsplit_once('-')
        && matches!(family, "GPL" | "LGPL" | "AGPL" | "GFDL")
        && !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
        return listed(&format!("{family}-{version}-{}", if later { "or-later" } else { "only" }));
    }
    match later {
        true => listed(base).map(|id| format!("{id}+")),
        false => listed(base),
    }
}

/// Names that people use for licences of the list.
const ALIASES: &[(&str, &str)] = &[
    ("Expat", "MIT"),
    ("MIT/X11", "MIT"),
    ("MIT License", "MIT"),
    ("The MIT License", "MIT"),
    ("BSD-3", "BSD-3-Clause"),
    ("BSD-2", "BSD-2-Clause"),
    ("BSD-4", "BSD-4-Clause"),
    ("BSD 3-Clause", "BSD-3-Clause"),
    ("3-Clause BSD License", "BSD-3-Clause"),
    ("BSD 2-Clause", "BSD-2-Clause"),
    ("BSD-3-clause-UC", "BSD-3-Clause"),
    ("Apache-2", "Apache-2.0"),
    ("Apache 2.0", "Apache-2.0"),
    ("Apache License 2.0", "Apache-2.0"),
    ("Apache License, Version 2.0", "Apache-2.0"),
    ("Apache Software License 2.0", "Apache-2.0"),
    ("Apache License, 2.0", "Apache-2.0"),
    ("Apache License Version 2.0", "Apache-2.0"),
    ("Apache Software License - Version 2.0", "Apache-2.0"),
    ("The Apache License, Version 2.0", "Apache-2.0"),
    ("The Apache Software License, Version 2.0", "Apache-2.0"),
    ("Eclipse Public License - v 1.0", "EPL-1.0"),
    ("Eclipse Public License 2.0", "EPL-2.0"),
    ("Eclipse Public License v2.0", "EPL-2.0"),
    ("EPL 2.0", "EPL-2.0"),
    ("EDL 1.0", "BSD-3-Clause"),
    ("New BSD License", "BSD-3-Clause"),
    ("Artistic", "Artistic-1.0-Perl"),
    ("Artistic-2", "Artistic-2.0"),
    ("Boost-1.0", "BSL-1.0"),
    ("CC0", "CC0-1.0"),
    ("MPL-1", "MPL-1.0"),
    ("MPL-2", "MPL-2.0"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("ISC License (ISCL)", "ISC"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("PSF", "PSF-2.0"),
    ("PSF-2", "PSF-2.0"),
    ("Perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("W3C", "W3C"),
    ("ZLIB", "Zlib"),
    ("Unlicense", "Unlicense"),
];

/// Names that Debian uses for exceptions of the list.
const KNOWN_EXCEPTIONS: &[(&str, &str)] = &[
    ("Autoconf", "Autoconf-exception-2.0"),
    ("Bison", "Bison-exception-2.2"),
    ("Classpath", "Classpath-exception-2.0"),
    ("Font", "Font-exception-2.0"),
    ("GCC", "GCC-exception-3.1"),
    ("Libtool", "Libtool-exception"),
    ("OpenSSL", "openvpn-openssl-exception"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn expression_of(texts: &[&str]) -> String {
        licence(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap().expression
    }

    #[test]
    fn names_of_debian_and_python_become_spdx() {
        for (given, expected) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("LGPL-2.1", "LGPL-2.1-only"),
            ("Expat", "MIT"),
            ("GPL-3+ with Autoconf exception", "GPL-3.0-or-later WITH Autoconf-exception-2.0"),
            ("Apache-2.0 OR MIT", "Apache-2.0 OR MIT"),
            ("GPL-2+ or Artistic-2.0", "GPL-2.0-or-later OR Artistic-2.0"),
            ("Expat and BSD-3-clause", "BSD-3-Clause AND MIT"),
            ("GPL-1+ or Artistic, and Expat", "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND MIT"),
            ("public-domain", "LicenseRef-public-domain"),
        ] {
            assert_eq!(expression_of(&[given]), expected, "{given}");
            spdx::Expression::parse(&expression_of(&[given])).unwrap();
        }
    }

    #[test]
    fn any_text_becomes_an_expression() {
        let odd = ["", "or", "a and", "GPL-2+ with", "((", "GPL-99", "ünïcode ✓", "GPL-+", "x, y or z", "AND"];
        for text in odd {
            let expression = expression_of(&[text, "MIT"]);
            spdx::Expression::parse(&expression)
                .unwrap_or_else(|error| panic!("{text:?} gives {expression:?}: {error}"));
        }
        assert!(licence(&[]).is_none());
    }
}
