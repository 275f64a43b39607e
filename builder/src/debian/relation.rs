//! Relations between packages, as `Depends` and its like write them: `a (>= 1) | b:any, c`.

use std::cmp::Ordering;

use super::version;

/// One package that would do, or that must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Real or virtual.
    pub name: &'a str,
    /// What follows a colon: `any`, `native`, or an architecture.
    pub qualifier: Option<&'a str>,
    /// Bound of its version.
    pub bound: Option<(Operator, &'a str)>,
}

/// How versions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and `<` as it once was
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and `>` as it once was
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }

    fn parse(text: &str) -> Option<(Self, &str)> {
        [
            ("<<", Self::Earlier),
            (">>", Self::Later),
            ("<=", Self::EarlierOrEqual),
            (">=", Self::LaterOrEqual),
            ("==", Self::Equal),
            ("=", Self::Equal),
            ("<", Self::EarlierOrEqual),
            (">", Self::LaterOrEqual),
        ]
        .into_iter()
        .find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (operator, rest.trim())))
    }
}

impl<'a> Relation<'a> {
    /// Reads one relation; none if it is not one. Restrictions (`[amd64]`, `<!nocheck>`) are not written in binary packages.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let end = text.find(|end: char| end.is_whitespace() || "([<".contains(end)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (name, qualifier) = match name.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (name, None),
        };
        let rest = rest.trim_start();
        let bound = match rest.strip_prefix('(') {
            Some(inside) => {
                let (inside, after) = inside.split_once(')')?;
                let (operator, version) = Operator::parse(inside.trim())?;
                if version.is_empty() || version.contains(char::is_whitespace) || !after.trim().is_empty() {
                    return None;
                }
                Some((operator, version))
            }
            None if rest.is_empty() => None,
            None => return None,
        };
        super::index::is_name(name).then_some(Self { name, qualifier, bound })
    }

    /// Whether a version is within the bound.
    pub fn admits(&self, version: &str) -> bool {
        let Some((operator, bound)) = self.bound else { return true };
        let order = version::compare(version, bound);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// Whether a package of this architecture may be meant.
    pub fn is_for(&self, architecture: &str) -> bool {
        self.qualifier
            .is_none_or(|qualifier| matches!(qualifier, "any" | "native" | "all") || qualifier == architecture)
    }
}

impl std::fmt::Display for Relation<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)?;
        match self.bound {
            Some((operator, version)) => write!(formatter, " ({} {version})", operator.as_str()),
            None => Ok(()),
        }
    }
}

/// The groups of a field, each a list of alternatives. What is no relation is left out: an index is not worth refusing for a
/// package that nobody asked for.
pub fn groups(field: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    let groups = field.split(',').map(|group| group.split('|').filter_map(Relation::parse).collect::<Vec<_>>());
    groups.filter(|group| !group.is_empty())
}

/// The relations of a field without alternatives (`Provides`, `Conflicts`, `Breaks`).
pub fn list(field: &str) -> impl Iterator<Item = Relation<'_>> {
    field.split(',').filter_map(Relation::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let read: Vec<_> = groups("libc6 (>= 2.34), aa:any (<<2~) | bb,\n cc ( = 1:2-3 ) ,, perl:any").collect();
        let texts: Vec<Vec<String>> =
            read.iter().map(|group| group.iter().map(Relation::to_string).collect()).collect();
        assert_eq!(texts, [vec!["libc6 (>= 2.34)"], vec!["aa (<< 2~)", "bb"], vec!["cc (= 1:2-3)"], vec!["perl"]]);
        assert_eq!(read[1][0].qualifier, Some("any"));
    }

    #[test]
    fn what_is_no_relation_is_none() {
        for text in
            ["", "a", "a b", "ab (", "ab ()", "ab (>=)", "ab (1)", "ab (>= 1) x", "(>= 1)", "ä", "ab (>= 1 2)", "-ab"]
        {
            assert_eq!(Relation::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bounds_admit_versions() {
        for (text, version, expected) in [
            ("aa (<< 2)", "2~rc1", true),
            ("aa (<< 2)", "2", false),
            ("aa (<= 2)", "2-0", true),
            ("aa (= 2)", "2-1", false),
            ("aa (>= 2)", "1:0", true),
            ("aa (>> 2)", "2", false),
            ("aa (> 2)", "2", true),
        ] {
            assert_eq!(Relation::parse(text).unwrap().admits(version), expected, "{text} {version}");
        }
    }
}
