//! Slow checks over a whole nixpkgs, run by name: `NIXPKGS=DIR cargo test --release -p expressions --lib -- --ignored nixpkgs --nocapture`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::SourceText;
use crate::symbols::Symbols;
use crate::{ast_print, parser, stack};

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "nix") {
            files.push(entry.path());
        }
    }
}

/// Every file of nixpkgs is read, and how fast; with `DIGESTS=FILE` a digest of what was understood of each is written there.
#[test]
#[ignore = "wants a nixpkgs"]
fn nixpkgs_parses() {
    let root = std::env::var_os("NIXPKGS").expect("NIXPKGS names a nixpkgs");
    let mut files = Vec::new();
    collect(Path::new(&root), &mut files);
    let texts: Vec<_> =
        files.into_iter().map(|name| Arc::new(SourceText { bytes: std::fs::read(&name).unwrap(), name })).collect();
    let size: usize = texts.iter().map(|text| text.bytes.len()).sum();
    stack::deep(|| {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let symbols = Symbols::default();
            let started = Instant::now();
            for text in &texts {
                let parsed = parser::parse(text, &symbols, b"/d", Some(b"/h"), Default::default());
                if let Err(finding) = parsed {
                    // One file is wrong on purpose.
                    eprintln!("{}: {}", text.name.display(), finding.message);
                }
            }
            best = best.min(started.elapsed());
        }
        let speed = size as f64 / best.as_secs_f64() / 1e6;
        eprintln!("{} files, {size} bytes, {best:?}, {speed:.1} MB/s", texts.len());
        if let Some(path) = std::env::var_os("DIGESTS") {
            let mut lines = String::new();
            for text in &texts {
                let symbols = Symbols::default();
                let parsed = parser::parse(text, &symbols, b"/d", Some(b"/h"), Default::default());
                let shown = match parsed {
                    Ok((tree, warnings)) => {
                        format!("{}{warnings:?}", ast_print::expression(&symbols, &tree, tree.root))
                    }
                    Err(finding) => finding.message,
                };
                let _ = writeln!(lines, "{} {}", blake3::hash(shown.as_bytes()), text.name.display());
            }
            std::fs::write(path, lines).unwrap();
        }
    });
}
