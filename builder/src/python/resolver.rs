//! Answers lock requests of kind `python`: which wheels requirements stand for.

use pep508_rs::VersionOrUrl;
use serde_json::Value;
use store::lock::{LockEntry, LockRequest};

use crate::python::lockfile::{Choice, resolved};
use crate::python::tags::Target;
use crate::python::{requirement, source};
use crate::report::Span;
use crate::resolve::Resolver;
use crate::{Builder, Error, Result};

/// Parameters: `requirements`, `python` (`3.11`), `platform` (`linux/amd64`), `glibc` (`2.36`).
pub struct Python;

impl Resolver for Python {
    fn kind(&self) -> &'static str {
        "python"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let text = |name: &str| match request.parameters.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(bad_request(name, "a string is expected")),
        };
        let target = Target::parse(text("python")?, text("platform")?, text("glibc")?)?;
        let requirements = requirements(request.parameters.get("requirements"))?;
        let mut records = Vec::new();
        if !requirements.is_empty() {
            let _span = Span::start(builder.reporter, "resolve", requirements.join(" "), None);
            let choice = Choice::of(&target)?;
            let found = resolved(builder, &requirements, &choice)?;
            records = source::with_build_requirements(builder, found, &choice)?;
        }
        Ok(LockEntry { request: request.clone(), records })
    }
}

fn bad_request(parameter: &str, reason: &str) -> Error {
    Error::Parameter { step: "lock python".to_owned(), parameter: parameter.to_owned(), reason: reason.to_owned() }
}

/// The requirements, each a valid one: a line like `-r /etc/passwd` would mean something else to uv.
fn requirements(value: Option<&Value>) -> Result<Vec<String>> {
    let Some(Value::Array(values)) = value else {
        return Err(bad_request("requirements", "a list of strings is expected"));
    };
    let texts = values
        .iter()
        .map(|value| value.as_str().ok_or_else(|| bad_request("requirements", "a list of strings is expected")));
    texts.map(|text| checked(text?)).collect()
}

/// A requirement, if it is one.
pub fn checked(text: &str) -> Result<String> {
    let bad = |reason: String| Error::Invalid { what: "requirement", name: text.to_owned(), reason };
    if text.chars().any(char::is_control) {
        return Err(bad("it has a control character".to_owned()));
    }
    let requirement = requirement::parse(text).map_err(bad)?;
    if matches!(requirement.version_or_url, Some(VersionOrUrl::Url(_))) {
        return Err(bad("it names an address, and only projects of an index can be locked".to_owned()));
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_checked_before_anyone_is_asked() {
        for good in ["numpy", "pandas>=2", "requests[socks] ~= 2.0; python_version > '3.8'", " flask "] {
            assert!(checked(good).is_ok(), "{good}");
        }
        let mut said = String::new();
        for bad in [
            "",
            "-r /etc/passwd",
            "./here",
            "numpy>=>2",
            "numpy>=1\n-r x",
            "a @ https://host/a.whl",
            "naïve",
            "numpy==",
            "--index-url=x",
        ] {
            let Err(Error::Invalid { reason, .. }) = checked(bad) else { panic!("{bad}") };
            said += &format!("{bad:?}: {reason}\n");
        }
        insta::assert_snapshot!(said, @r#"
        "": Empty field is not allowed for PEP508
        "-r /etc/passwd": Expected package name starting with an alphanumeric character, found `-`
        "./here": URL requirement must be preceded by a package name. Add the name of the package before the URL (e.g., `package_name @ /path/to/file`).
        "numpy>=>2": no such comparison operator ">=>", must be one of ~= == != <= >= < > ===
        "numpy>=1\n-r x": it has a control character
        "a @ https://host/a.whl": it names an address, and only projects of an index can be locked
        "naïve": it has a character that is not ASCII, `ï`
        "numpy==": Unexpected end of version specifier, expected version
        "--index-url=x": Expected package name starting with an alphanumeric character, found `-`
        "#);
    }
}
