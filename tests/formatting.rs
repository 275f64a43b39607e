//! Expressions that are examples are formatted as `nixfmt` formats.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::have;

fn expressions(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            expressions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "expr") {
            found.push(path);
        }
    }
}

#[test]
fn examples_are_formatted() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    for directory in ["docs", "benchmarks"] {
        expressions(&repository.join(directory), &mut files);
    }
    assert!(!files.is_empty());
    if !have("nixfmt") {
        return;
    }
    let output = Command::new("nixfmt").arg("--check").args(&files).output().expect("nixfmt starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
