//! Pages that are written by a test: `docs/cli.md` from `--help`. `UPDATE_PAGES=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

#[test]
fn the_page_of_the_command_line_is_true() {
    let top = help("");
    let mut page = format!("# The command line\n\nWritten by a test from `--help`.\n\n```\n{top}\n```\n");
    let mut sections = 0;
    for command in commands(&top) {
        sections += section(&mut page, "##", command);
    }
    assert!(sections > 60, "{sections} commands are not all");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/cli.md is not what --help says: UPDATE_PAGES=1 cargo test pages");
}

/// Writes about a command and those below it; gives how many they are. What holds for all of them stands at the top of the page.
fn section(page: &mut String, mark: &str, command: &str) -> usize {
    let help = help(command);
    let own = help.split_once("\n\nGlobal options:").map_or(&*help, |(own, _)| own);
    let _ = write!(page, "\n{mark} forge {command}\n\n```\n{own}\n```\n");
    let below = commands(&help).map(|below| section(page, &format!("{mark}#"), &format!("{command} {below}")));
    1 + below.sum::<usize>()
}

/// What `--help` says of a command.
fn help(command: &str) -> String {
    let mut forge = Command::new(env!("CARGO_BIN_EXE_forge"));
    let output = forge.args(command.split_whitespace()).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success(), "forge {command} --help: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The commands that a help lists: each begins its line, what goes on with a line is further in.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help")
}
