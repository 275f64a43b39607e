//! Texts of the ecosystems: indexes of Debian with their signatures and relations, lock files of Python, runtimes of Joblet.
#![no_main]

use std::cmp::Ordering;

use builder::debian::{control::Control, date, index, relation, signature::Ring, version};
use builder::python::lockfile::Choice;
use builder::python::tags::Target;
use builder::python::pylock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind % 6 {
        0 => {
            for package in index::packages(text, "fuzz").flatten() {
                for field in [package.depends, package.conflicts, package.provides] {
                    for relation in relation::groups(field).flatten() {
                        let _ = (relation.admits(package.version), relation.is_for(package.architecture));
                    }
                }
            }
        }
        1 => {
            let _ = Control::parse(text);
            let _ = date::parse(text);
        }
        2 => {
            assert!(Ring::default().open(bytes, 1_800_000_000).is_err(), "nobody is trusted");
            assert!(Ring::default().check_detached(bytes, b"text", 1_800_000_000).is_err(), "nobody is trusted");
        }
        3 => {
            let target = Target::parse("3.11", "linux/amd64", "2.36").unwrap();
            let choice = Choice::of(&target).unwrap();
            let _ = pylock::records(text, &choice);
            let _ = choice.holds("fuzz", text, &[]);
            let _ = choice.holds_requirement(text);
        }
        4 => {
            if let Ok((description, _)) = builder::joblet::read(text) {
                let _ = builder::joblet::expression(&description);
            }
        }
        _ => {
            let mut versions = text.split(' ');
            let (left, right) = (versions.next().unwrap_or_default(), versions.next().unwrap_or_default());
            assert_eq!(version::compare(left, right), version::compare(right, left).reverse());
            assert_eq!(version::compare(left, left), Ordering::Equal);
        }
    }
});
