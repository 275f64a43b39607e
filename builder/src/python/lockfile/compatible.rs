//! Whether a file is for the Python and the system of the layer at all: `requires-python`, and the environments that it was locked for.
//!
//! Of the layer's Python two numbers are known. What a third would decide is let through, and said.

use pep440_rs::{Version, VersionSpecifiers};

use super::{Choice, bad};
use crate::python::requirement;
use crate::{Error, Result};

/// Refuses a file whose words are for something else. What remains open is given, in words.
pub fn check(name: &str, table: &toml::Table, choice: &Choice<'_>) -> Result<Vec<String>> {
    let mut open = Vec::new();
    let project = table.get("project").and_then(toml::Value::as_table);
    // `pyproject.toml` has it in the project, `uv.lock` and `pylock.toml` at the top.
    for holder in [Some(table), project].into_iter().flatten() {
        if let Some(wanted) = holder.get("requires-python") {
            open.extend(python(name, format!("`{name}`"), wanted, choice)?);
        }
    }
    // PEP 751; uv's own name of it.
    for key in ["environments", "supported-markers"] {
        if let Some(wanted) = table.get(key) {
            environments(name, key, wanted, choice)?;
        }
    }
    // PEP 751 has it for each package that is installed, too.
    for package in table.get("packages").and_then(toml::Value::as_array).into_iter().flatten() {
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
        let is_installed = text("marker").map_or(Ok(true), |marker| choice.holds(name, marker, &choice.extras))?;
        if let Some(wanted) = package.get("requires-python").filter(|_| is_installed) {
            let who = format!("`{}` of `{name}`", text("name").unwrap_or_default().escape_debug());
            open.extend(python(name, who, wanted, choice)?);
        }
    }
    if let Some(project) = project {
        dynamic(name, project, choice)?;
    }
    Ok(open)
}

/// Whether some release of the layer's Python is wanted; a sentence if not all of them are.
fn python(name: &str, who: String, wanted: &toml::Value, choice: &Choice<'_>) -> Result<Option<String>> {
    // More than any Python has had.
    const RELEASES: u64 = 100;
    let text = wanted.as_str().ok_or_else(|| bad(name, "`requires-python` is a text"))?;
    let wanted: VersionSpecifiers = requirement::specifiers(text)
        .map_err(|reason| bad(name, format!("`requires-python`: `{}`: {reason}", text.escape_debug())))?;
    let python = choice.target.python;
    let release = |third| Version::new([u64::from(python.major), u64::from(python.minor), third]);
    let admitted = (0..RELEASES).filter(|third| wanted.contains(&release(*third))).count() as u64;
    match admitted {
        0 => Err(Error::OtherPython { who, wanted: text.to_owned(), python: python.to_string() }),
        RELEASES => Ok(None),
        _ => Ok(Some(format!("{who} wants Python `{text}`: which release of {python} the layer has is not looked at"))),
    }
}

/// Whether the layer is one of the environments that a file was locked for.
fn environments(name: &str, key: &str, wanted: &toml::Value, choice: &Choice<'_>) -> Result<()> {
    let markers: Option<Vec<&str>> =
        wanted.as_array().and_then(|items| items.iter().map(toml::Value::as_str).collect());
    let markers = markers.ok_or_else(|| bad(name, format!("`{key}` is a list of markers")))?;
    for marker in &markers {
        if choice.holds(name, marker, &[])? {
            return Ok(());
        }
    }
    if markers.is_empty() {
        return Ok(());
    }
    Err(Error::OtherEnvironment {
        file: name.to_owned(),
        wanted: markers.join("` or `"),
        here: format!("Python {} on linux {}", choice.target.python, choice.target.machine),
    })
}

/// Refuses a project that leaves what is wanted of it to whatever builds it.
fn dynamic(name: &str, project: &toml::Table, choice: &Choice<'_>) -> Result<()> {
    let left = project.get("dynamic").and_then(toml::Value::as_array);
    let is_left = |field: &str| left.is_some_and(|left| left.iter().any(|item| item.as_str() == Some(field)));
    for (field, is_wanted) in [("dependencies", true), ("optional-dependencies", !choice.extras.is_empty())] {
        if is_wanted && is_left(field) {
            return Err(Error::Dynamic { file: name.to_owned(), field });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::lockfile::environment;
    use crate::python::tags::Target;

    /// What is said of a file for Python 3.11 on linux, nothing if it is for that.
    fn said(text: &str, extras: &[&str]) -> String {
        let table: toml::Table = toml::from_str(text).unwrap();
        let target = Target::parse("3.11", "linux/amd64", "2.36").unwrap();
        let extras = extras.iter().map(|extra| (*extra).to_owned()).collect();
        let environment = environment(&target).unwrap();
        match check("file", &table, &Choice { target: &target, environment, extras, groups: Vec::new() }) {
            Ok(open) => open.join("\n"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_file_for_another_python_is_refused() {
        for wanted in [">=3.12", ">=3.13", "<3.11", "==3.10.*", ">=3.8, !=3.11.*", "~=3.12", "==2.7.*", ">=3.12.1"] {
            for text in [
                format!("requires-python = \"{wanted}\""),
                format!("[project]\nname = \"x\"\nrequires-python = \"{wanted}\""),
            ] {
                assert!(said(&text, &[]).starts_with("error: `file`"), "{text}");
            }
        }
        for wanted in [">=3.11", ">=3.8", ">=3.10,<4", "==3.11.*", "~=3.9", "<3.12", ">=3.8, !=3.9.*", ""] {
            assert_eq!(said(&format!("requires-python = \"{wanted}\""), &[]), "", "{wanted}");
        }
        let of_package =
            "[[packages]]\nname = \"a\"\nmarker = \"sys_platform == 'PLATFORM'\"\nrequires-python = \">=3.12\"";
        insta::assert_snapshot!(
            [
                said("[project]\nrequires-python = \">=3.12\"", &[]),
                said("requires-python = \">=3.13\"", &[]),
                said("requires-python = \">=3.11.9\"", &[]),
                said("requires-python = \"three\"", &[]),
                said("requires-python = \">=3.é\"", &[]),
                said("requires-python = 3", &[]),
                said(&of_package.replace("PLATFORM", "linux"), &[]),
                said(&of_package.replace("PLATFORM", "win32"), &[]),
            ]
            .join("\n"),
            @"
            error: `file` wants Python `>=3.12`, and the layer has 3.11
            error: `file` wants Python `>=3.13`, and the layer has 3.11
            `file` wants Python `>=3.11.9`: which release of 3.11 the layer has is not looked at
            error: bad lock file `file`: `requires-python`: `three`: Failed to parse version: Unexpected end of version specifier, expected operator
            error: bad lock file `file`: `requires-python`: `>=3.é`: it has a character that is not ASCII, `é`
            error: bad lock file `file`: `requires-python` is a text
            error: `a` of `file` wants Python `>=3.12`, and the layer has 3.11
            "
        );
    }

    #[test]
    fn a_file_for_another_system_is_refused() {
        insta::assert_snapshot!(
            [
                said("environments = [\"sys_platform == 'win32'\"]", &[]),
                said("supported-markers = [\"sys_platform == 'darwin'\", \"python_version < '3.11'\"]", &[]),
                said("environments = [\"sys_platform == 'win32'\", \"sys_platform == 'linux'\"]", &[]),
                said("environments = []", &[]),
                said("environments = \"sys_platform == 'win32'\"", &[]),
                said("environments = [\"sys_platform\"]", &[]),
            ]
            .join("\n"),
            @"
            error: `file` is locked for `sys_platform == 'win32'`, and the layer is Python 3.11 on linux x86_64
            error: `file` is locked for `sys_platform == 'darwin'` or `python_version < '3.11'`, and the layer is Python 3.11 on linux x86_64


            error: bad lock file `file`: `environments` is a list of markers
            error: bad lock file `file`: marker `sys_platform`: Expected a valid marker operator (such as `>=` or `not in`), found ``
            "
        );
    }

    #[test]
    fn a_project_that_leaves_its_dependencies_to_its_build_is_refused() {
        let of = |dynamic: &str| format!("[project]\nname = \"x\"\ndynamic = [{dynamic}]");
        insta::assert_snapshot!(
            [
                said(&of("\"version\", \"dependencies\""), &[]),
                said(&of("\"optional-dependencies\""), &["a"]),
                said(&of("\"version\", \"optional-dependencies\""), &[]),
            ]
            .join("\n"),
            @"
            error: `file` leaves `dependencies` to what builds the project (`dynamic`)
            error: `file` leaves `optional-dependencies` to what builds the project (`dynamic`)
            "
        );
    }
}
