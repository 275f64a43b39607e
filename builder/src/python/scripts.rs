//! The programs that a wheel brings: entry points, for which a script is written, and scripts whose first line is rewritten.

use std::collections::BTreeMap;

/// What a console or GUI script calls: `module:object.attribute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint {
    module: String,
    object: String,
}

impl EntryPoint {
    /// Reads `module:object.attribute [extra, …]`.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.split('[').next().unwrap_or_default();
        let (module, object) = value.split_once(':')?;
        let (module, object) = (module.trim(), object.trim());
        let is_identifier = |word: &str| {
            word.chars().all(|character| character == '_' || character.is_alphanumeric())
                && word.chars().next().is_some_and(|first| !first.is_numeric())
        };
        let is_path = |path: &str| path.split('.').all(is_identifier);
        (is_path(module) && is_path(object)).then(|| Self { module: module.to_owned(), object: object.to_owned() })
    }

    /// The script, as `pip` writes it.
    pub fn script(&self, interpreter: &str) -> String {
        let Self { module, object } = self;
        let import = object.split('.').next().unwrap_or(object);
        format!(
            "#!{interpreter}\n\
             # -*- coding: utf-8 -*-\n\
             import sys\n\
             from {module} import {import}\n\
             if __name__ == '__main__':\n    \
                 if sys.argv[0].endswith('.exe'):\n        \
                     sys.argv[0] = sys.argv[0][:-4]\n    \
                 sys.exit({object}())\n"
        )
    }
}

/// The console and GUI scripts of an `entry_points.txt`, by name. An ini file as Python's `configparser` reads it with `=` alone
/// as delimiter: comments begin a line, and an indented line goes on with the value before.
pub fn entry_points(text: &str) -> Result<BTreeMap<String, EntryPoint>, String> {
    let mut values: Vec<(String, String)> = Vec::new();
    let mut wanted = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[').filter(|_| !line.starts_with(char::is_whitespace)) {
            let name = section.strip_suffix(']').ok_or_else(|| format!("entry_points.txt has `{trimmed}`"))?;
            wanted = matches!(name.trim(), "console_scripts" | "gui_scripts");
            continue;
        }
        if !wanted {
            continue;
        }
        match values.last_mut() {
            Some((_, value)) if line.starts_with(char::is_whitespace) && !trimmed.contains('=') => {
                value.push_str(trimmed)
            }
            _ => {
                let (name, value) =
                    trimmed.split_once('=').ok_or_else(|| format!("entry_points.txt has `{trimmed}`"))?;
                values.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
    }
    let mut points = BTreeMap::new();
    for (name, value) in values {
        if store::Name::new(name.as_str()).is_err() || name.contains('\\') {
            return Err(format!("its script `{}` has a name that leads elsewhere", name.escape_debug()));
        }
        let point = EntryPoint::parse(&value)
            .ok_or_else(|| format!("its script `{name}` calls `{value}`, which is no `module:object`"))?;
        points.insert(name, point);
    }
    Ok(points)
}

/// Whether a file of the `scripts` scheme wants its first line to name the interpreter.
pub const PYTHON_SCRIPT: &[u8] = b"#!python";

/// A script with its first line replaced.
pub fn with_interpreter(script: &[u8], interpreter: &str) -> Vec<u8> {
    let rest = script.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &script[end + 1..]);
    [b"#!", interpreter.as_bytes(), b"\n", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_become_scripts() {
        let text = "# a comment\n[console_scripts]\nhello = hello.cli:App.main\n other=hello:run [extra]\n\n\
                    [gui_scripts]\nwindow=hello.gui : main\n[pytest11]\nodd = whatever\n";
        let points = entry_points(text).unwrap();
        assert_eq!(points.keys().collect::<Vec<_>>(), ["hello", "other", "window"]);
        let script = points["hello"].script("/usr/bin/python3.11");
        insta::assert_snapshot!(script, @r"
        #!/usr/bin/python3.11
        # -*- coding: utf-8 -*-
        import sys
        from hello.cli import App
        if __name__ == '__main__':
            if sys.argv[0].endswith('.exe'):
                sys.argv[0] = sys.argv[0][:-4]
            sys.exit(App.main())
        ");
    }

    #[test]
    fn an_entry_point_that_leads_elsewhere_is_refused() {
        for bad in
            ["../../bin/sh = a:b", "x = a", "x = a:b()", "x = a;import os:b", "x = a:", "x", ". = a:b", "x = a:1b"]
        {
            assert!(entry_points(&format!("[console_scripts]\n{bad}\n")).is_err(), "{bad}");
        }
        assert!(entry_points("[console_scripts\nx = a:b").is_err());
    }

    #[test]
    fn only_the_first_line_is_replaced() {
        assert_eq!(with_interpreter(b"#!python -E\nx\n", "/usr/bin/python3.11"), b"#!/usr/bin/python3.11\nx\n");
        assert_eq!(with_interpreter(b"#!python", "/p"), b"#!/p\n");
    }
}
