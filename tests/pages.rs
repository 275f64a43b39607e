//! Pages that are written by a test: `docs/cli.md` from `--help`. `UPDATE_PAGES=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

#[test]
fn the_page_of_the_command_line_is_true() {
    let help = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        let output = command.args(arguments).arg("--help").env("COLUMNS", "100").output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    let top = help(&[]);
    let commands = top.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").collect();
    let mut page = format!("# The command line\n\nWritten by a test from `--help`.\n\n```\n{top}\n```\n");
    for command in commands {
        let _ = write!(page, "\n## forge {command}\n\n```\n{}\n```\n", help(&[command]));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/cli.md is not what --help says: UPDATE_PAGES=1 cargo test pages");
}
