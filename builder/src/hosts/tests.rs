//! Which hosts are named, and how questions for names are read and answered.

use std::net::Ipv4Addr;

use super::Hosts;
use super::names::{self, Answer};

fn named(text: &str) -> Vec<(String, Vec<u16>)> {
    let mut hosts = Hosts::default();
    hosts.add_addresses(text.as_bytes());
    hosts.ports.into_iter().map(|(name, ports)| (name, ports.into_iter().collect())).collect()
}

#[test]
fn addresses_name_hosts_wherever_they_stand() {
    let one = |name: &str, port: u16| vec![(name.to_owned(), vec![port])];
    for (text, expected) in [
        ("https://host.example/file", one("host.example", 443)),
        ("curl 'http://HOST.example:8080/?x=1'", one("host.example", 8080)),
        ("git+ssh://git@host.example/x", one("host.example", 22)),
        ("{\"url\":\"https://user:pass@host.example\"}", one("host.example", 443)),
        ("url = https://host.example.", one("host.example", 443)),
        ("mirror://gnu/hello.tar.gz file:///etc/passwd", Vec::new()),
        ("https:///no-host https://%zz/ https://[::1]/ ://x https://a..b/", Vec::new()),
        ("http://h:0/ http://h:99999/", one("h", 80)),
    ] {
        assert_eq!(named(text), expected, "{text}");
    }
    assert_eq!(named("https://a.example/ http://b.example/ http://a.example/").len(), 2);
    // Text that is no address gives none, however it ends.
    for text in ["://", "https://", "h\u{e4}://x", "\u{e4}https://\u{e4}"] {
        assert_eq!(named(text), Vec::new(), "{text}");
    }
}

#[test]
fn words_name_hosts_ports_and_domains() {
    let mut hosts = Hosts::default();
    for word in ["one.example", "two.example:8443", "*.wild.example"] {
        hosts.add_word(word).unwrap();
    }
    for word in ["", ":80", "a b", "host:http", "*x.example", "a..b", "https://x"] {
        assert!(hosts.add_word(word).is_err(), "{word}");
    }
    for (name, port, allowed) in [
        ("one.example", 443, true),
        ("ONE.example.", 80, true),
        ("one.example", 22, false),
        ("two.example", 8443, true),
        ("two.example", 443, false),
        ("a.b.wild.example", 443, true),
        ("wild.example", 443, false),
        ("notwild.example", 443, false),
        ("other.example", 443, false),
        ("", 443, false),
    ] {
        assert_eq!(hosts.allows(name, port), allowed, "{name}:{port}");
    }
    hosts.add_word("*").unwrap();
    assert!(hosts.allows("other.example", 443) && !hosts.allows("other.example", 8443));
    assert_eq!(hosts.listened(), [80, 443, 8443]);
}

#[test]
fn more_ports_than_anybody_means_are_refused() {
    let mut hosts = Hosts::default();
    for port in 1..=64 {
        hosts.add_word(&format!("h:{port}")).unwrap();
    }
    assert!(hosts.add_word("h:65").is_err());
    assert_eq!(hosts.listened().len(), 64);
}

/// A question for a name, of a kind.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

#[test]
fn a_name_is_answered_as_its_question_came() {
    let asked = question("Host.Example", 1);
    let read = names::read(&asked).unwrap();
    assert_eq!((read.name.as_str(), read.wants_ipv4), ("host.example", true));
    let answer = names::write(&read, Answer::Address(Ipv4Addr::new(127, 128, 0, 1)));
    assert_eq!(&answer[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(&answer[12..asked.len()], &asked[12..]);
    assert!(answer.ends_with(&[0, 4, 127, 128, 0, 1]));
    let unknown = names::write(&read, Answer::Unknown);
    assert_eq!((unknown[3] & 15, unknown.len()), (3, asked.len()));
    let six = question("host.example", 28);
    let read = names::read(&six).unwrap();
    assert!(!read.wants_ipv4 && names::write(&read, Answer::Empty)[3] & 15 == 0);
}

#[test]
fn what_is_no_question_is_left_unanswered() {
    let asked = question("host.example", 1);
    for length in 0..asked.len() {
        assert_eq!(names::read(&asked[..length]), None, "{length}");
    }
    let mut pointer = asked.clone();
    pointer[12] = 0xc0;
    let mut answer = asked.clone();
    answer[2] |= 0x80;
    let mut many = asked;
    many[5] = 2;
    for message in [pointer, answer, many] {
        assert_eq!(names::read(&message), None);
    }
}
