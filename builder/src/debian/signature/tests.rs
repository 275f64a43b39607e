//! Indexes that are signed well, badly, or not at all (`fixtures/debian/README.md`).

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../fixtures/debian/", $name)).as_slice()
    };
}

/// `date -ud 2026-02-01 +%s`
const NOW: i64 = 1_769_904_000;

fn ring() -> Ring {
    Ring::new(fixture!("keys.asc"))
}

fn refused(message: &[u8], now: i64) -> String {
    ring().open(message, now).unwrap_err()
}

#[test]
fn a_good_signature_gives_the_signed_text() {
    let release = String::from_utf8(fixture!("Release").to_vec()).unwrap();
    for message in [fixture!("InRelease"), fixture!("InRelease.subkey"), fixture!("InRelease.two")] {
        assert_eq!(ring().open(message, NOW).unwrap().trim_end(), release.trim_end());
    }
    ring().check_detached(fixture!("Release.gpg"), fixture!("Release"), NOW).unwrap();
}

#[test]
fn a_changed_text_is_refused() {
    let text = String::from_utf8(fixture!("InRelease").to_vec()).unwrap();
    for changed in [text.replace("bookworm", "trixie"), text.replace("Origin", "origin"), text.replace("769", "768")] {
        assert!(refused(changed.as_bytes(), NOW).contains("was changed"));
    }
    let detached = ring().check_detached(fixture!("Release.gpg"), b"Suite: stable\n", NOW);
    assert!(detached.unwrap_err().contains("was changed"));
}

#[test]
fn text_around_the_signed_text_is_not_read() {
    let text = String::from_utf8(fixture!("InRelease").to_vec()).unwrap();
    for smuggled in [format!("Suite: evil\n{text}"), format!("{text}\nSuite: evil\n"), format!("{text}{text}")] {
        match ring().open(smuggled.as_bytes(), NOW) {
            Ok(read) => assert!(!read.contains("evil")),
            Err(reason) => assert!(!reason.is_empty()),
        }
    }
}

#[test]
fn only_trusted_keys_in_force_count() {
    assert!(refused(fixture!("InRelease.other"), NOW).contains("not trusted here"));
    let expired = refused(fixture!("InRelease.expired"), NOW);
    assert!(expired.contains("expired on 2020-12-31"), "{expired}");
    assert!(refused(fixture!("InRelease.revoked"), NOW).contains("revoked"));
    // `date -ud 2031-01-01 +%s`: the subkey has expired, its key has not.
    assert!(refused(fixture!("InRelease.subkey"), 1_924_992_000).contains("expired on 2030"));
    assert!(Ring::default().open(fixture!("InRelease"), NOW).is_err());
}

#[test]
fn a_named_fingerprint_excludes_other_keys() {
    let of = |fingerprint: &str| Ring { fingerprints: vec![fingerprint.to_owned()], ..ring() };
    assert!(of("BB1518A86E2F9078DEE8C578EEF8C84B8C09AF1F").open(fixture!("InRelease"), NOW).is_ok());
    assert!(of("35818E86E150D28605510C764A15250D17614A8A").open(fixture!("InRelease.subkey"), NOW).is_ok());
    assert!(of("35818E86E150D28605510C764A15250D17614A8A").open(fixture!("InRelease"), NOW).is_err());
}

#[test]
fn a_weak_digest_is_refused() {
    assert!(refused(fixture!("InRelease.weak"), NOW).contains("weak digest SHA1"));
}

#[test]
fn what_is_not_signed_is_refused() {
    let text = String::from_utf8(fixture!("InRelease").to_vec()).unwrap();
    let unsigned = text.split("-----BEGIN PGP SIGNATURE").next().unwrap();
    for message in [fixture!("Release"), b"", b"\xff\xfe", b"-----BEGIN PGP SIGNED MESSAGE-----", unsigned.as_bytes()] {
        assert!(ring().open(message, NOW).is_err());
    }
    for signature in [b"".as_slice(), b"\xff", b"-----BEGIN PGP SIGNATURE-----", fixture!("keys.asc")] {
        assert!(ring().check_detached(signature, fixture!("Release"), NOW).is_err());
    }
}

#[test]
fn a_damaged_message_or_ring_is_an_error_and_no_panic() {
    let message = fixture!("InRelease");
    for at in 0..message.len() {
        let mut damaged = message.to_vec();
        damaged[at] ^= 4;
        if let Ok(text) = ring().open(&damaged, NOW) {
            // Armour has parts that mean nothing (its check sum, the claimed digests); the text is what was signed all the same.
            assert_eq!(text, ring().open(message, NOW).unwrap());
        }
        assert!(ring().open(&message[..at], NOW).is_err() || at + 1 == message.len());
    }
    for at in (0..DEBIAN_KEYS.len()).step_by(997) {
        let mut damaged = DEBIAN_KEYS.to_vec();
        damaged[at] ^= 0x55;
        _ = Ring::new(&damaged).open(message, NOW);
        _ = Ring::new(&DEBIAN_KEYS[..at]);
    }
}

#[test]
fn debians_keys_are_those_of_the_page() {
    let page = include_str!("../../../keys/README.md");
    let ring = Ring::new(DEBIAN_KEYS);
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect::<Vec<_>>();
    let found: Vec<String> = ring.keys.states(NOW).into_iter().map(|(fingerprint, _)| fingerprint).collect();
    assert_eq!(listed, found);
    assert!(ring.keys.states(NOW).iter().all(|(_, state)| state.is_ok()));
}
