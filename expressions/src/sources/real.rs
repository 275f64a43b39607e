//! Where paths lead when all links in them are followed, each directory being looked at once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Answers that were given.
#[derive(Debug, Default)]
pub struct RealPaths {
    known: Mutex<HashMap<PathBuf, Option<PathBuf>>>,
}

/// As many links does the kernel follow.
const MOST_LINKS: usize = 40;

impl RealPaths {
    /// The path without links in it; none if there is nothing, or a loop of links.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        self.follow(path, &mut 0)
    }

    fn follow(&self, path: &Path, links: &mut usize) -> Option<PathBuf> {
        let mut real = PathBuf::from("/");
        // As written so far: the question that may have been asked before, unless it goes up.
        let mut written = PathBuf::from("/");
        let mut plain = true;
        for component in path.components() {
            match component {
                Component::ParentDir => {
                    plain = false;
                    real.pop();
                }
                Component::Normal(name) => {
                    written.push(name);
                    real = match plain {
                        true => self.step(&written, &real, name, links)?,
                        false => look(self, &real, name, links)?,
                    };
                }
                _ => {}
            }
        }
        Some(real)
    }

    fn step(&self, written: &Path, directory: &Path, name: &OsStr, links: &mut usize) -> Option<PathBuf> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(written) {
            return known.clone();
        }
        let found = look(self, directory, name, links);
        // What was given up for want of patience may be found on another way.
        if *links < MOST_LINKS {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(written.to_owned(), found.clone());
        }
        found
    }
}

/// Where an entry of a directory leads.
fn look(paths: &RealPaths, directory: &Path, name: &OsStr, links: &mut usize) -> Option<PathBuf> {
    let path = directory.join(name);
    match std::fs::read_link(&path) {
        Ok(target) => {
            *links += 1;
            if *links >= MOST_LINKS {
                return None;
            }
            paths.follow(&directory.join(target), links)
        }
        // Something is there, and it is no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Some(path),
        Err(_) => None,
    }
}
