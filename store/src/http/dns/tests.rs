//! A name server of our own, and files as machines have them.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

fn at(server: &SocketAddr) -> Configuration {
    Configuration { servers: vec![*server], timeout: Duration::from_millis(300), ..Configuration::parse("") }
}

/// The question's bytes, turned into an answer with these flags and records.
fn reply(question: &[u8], flags: u16, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, content) in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend((content.len() as u16).to_be_bytes());
        bytes.extend(content);
    }
    bytes
}

fn kind(question: &[u8]) -> u16 {
    u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]])
}

/// Answers `times` questions over UDP as told; its address.
fn serve(times: usize, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        for _ in 0..times {
            let Ok((length, from)) = socket.recv_from(&mut bytes) else { return };
            for reply in answer(&bytes[..length]) {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    address
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

#[test]
fn a_file_of_hosts_is_read_as_the_c_library_does() {
    let text =
        "127.0.0.1 localhost # 10.0.0.9 not\n::1 localhost\n10.0.0.1\tBuild.Example build\nfe80::1%eth0 link\nbroken\n";
    let found = |name: &str| in_hosts(text, name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
    assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
    assert_eq!(found("build"), ["10.0.0.1"]);
    assert_eq!(found("build.example"), ["10.0.0.1"]);
    assert_eq!(found("link"), ["fe80::1"]);
    assert!(found("not").is_empty() && found("broken").is_empty());
}

#[test]
fn the_configuration_is_read_as_the_c_library_does() {
    let it = Configuration::parse(
        "# comment\nnameserver 10.0.0.1\nnameserver fe80::2%eth0\nnameserver nonsense\ndomain old\nsearch One.example two.example.\noptions ndots:2 timeout:1 attempts:9 rotate edns0\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
    );
    assert_eq!(
        it.servers.iter().map(|it| it.ip().to_string()).collect::<Vec<_>>(),
        ["10.0.0.1", "fe80::2", "10.0.0.3"]
    );
    assert_eq!(it.search, ["one.example", "two.example"]);
    assert_eq!((it.dots, it.timeout, it.attempts, it.rotate), (2, Duration::from_secs(1), 5, true));
    assert_eq!(it.candidates("a.b", false), ["a.b.one.example", "a.b.two.example", "a.b"]);
    assert_eq!(it.candidates("a.b.c", false), ["a.b.c", "a.b.c.one.example", "a.b.c.two.example"]);
    assert_eq!(it.candidates("a", true), ["a"]);
    assert_eq!(Configuration::parse("").servers, ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
}

#[test]
fn what_is_an_address_is_not_asked_for_and_localhost_is_here() {
    let nowhere = tempfile::tempdir().unwrap();
    let ask = |host: &str| addresses(nowhere.path(), host, Duration::ZERO);
    assert_eq!(ask("10.1.2.3").unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(ask("[::1]").unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(ask("a.LOCALHOST.").unwrap().len(), 2);
    let long = "a".repeat(64);
    for bad in ["", ".", "a..b", "a b", long.as_str()] {
        assert!(matches!(ask(bad), Err(Failure::Unknown)), "{bad}");
    }
}

#[test]
fn both_kinds_are_asked_for_and_aliases_followed() {
    let address = serve(2, |question| {
        let target = b"\x04real\x07example\x00".to_vec();
        let (mut bytes, alias) = (reply(question, 0x8180, &[(5, target)]), question.len() + 12);
        bytes[7] += 1;
        // The address belongs to where the alias leads: a pointer to its target.
        bytes.extend([0xc0, alias as u8]);
        bytes.extend(kind(question).to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        let content: Vec<u8> =
            if kind(question) == 1 { vec![192, 0, 2, 1] } else { Ipv6Addr::LOCALHOST.octets().into() };
        bytes.extend((content.len() as u16).to_be_bytes());
        bytes.extend(content);
        vec![bytes]
    });
    let found = at(&address).ask("www.example", soon()).unwrap();
    assert_eq!(found, ["192.0.2.1".parse::<IpAddr>().unwrap(), Ipv6Addr::LOCALHOST.into()]);
}

#[test]
fn forged_answers_are_passed_over() {
    let address = serve(2, |question| {
        let content = if kind(question) == 1 { vec![6, 6, 6, 6] } else { vec![6; 16] };
        let honest = if kind(question) == 1 { vec![192, 0, 2, 7] } else { vec![7; 16] };
        let mut other_number = reply(question, 0x8180, &[(kind(question), content.clone())]);
        other_number[0] ^= 0xff;
        let mut other_name = reply(question, 0x8180, &[(kind(question), content.clone())]);
        other_name[13] ^= 1;
        let question_again = reply(question, 0x0100, &[(kind(question), content)]);
        vec![
            vec![1, 2, 3],
            other_number,
            other_name,
            question_again,
            reply(question, 0x8180, &[(kind(question), honest)]),
        ]
    });
    assert_eq!(at(&address).ask("www.example", soon()).unwrap()[0].to_string(), "192.0.2.7");
}

#[test]
fn a_server_that_refuses_or_is_silent_gives_way_to_the_next() {
    let refuses = serve(2, |question| vec![reply(question, 0x8185, &[])]);
    let silent = serve(2, |_| Vec::new());
    let knows = serve(2, |question| match kind(question) {
        1 => vec![reply(question, 0x8180, &[(1, vec![192, 0, 2, 5])])],
        _ => vec![reply(question, 0x8180, &[])],
    });
    let it = Configuration { servers: vec![refuses, silent, knows], ..at(&knows) };
    assert_eq!(it.ask("www.example", soon()).unwrap()[0].to_string(), "192.0.2.5");
    let nobody = Configuration { attempts: 1, ..at(&serve(2, |_| Vec::new())) };
    assert!(matches!(nobody.ask("www.example", soon()), Err(Failure::Silent(_))));
}

#[test]
fn a_name_that_is_not_there_is_unknown_and_asked_for_once() {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let address = serve(8, move |question| {
        counted.fetch_add(1, Ordering::SeqCst);
        vec![reply(question, 0x8183, &[])]
    });
    assert!(matches!(at(&address).ask("nothing.example", soon()), Err(Failure::Unknown)));
    assert_eq!(times.load(Ordering::SeqCst), 2);
}

#[test]
fn an_answer_that_does_not_fit_comes_by_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        for _ in 0..2 {
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&reply(&bytes[..length], 0x8380, &[]), from).unwrap();
        }
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let records: Vec<(u16, Vec<u8>)> = match kind(&question) {
                1 => (0..40).map(|number| (1, vec![192, 0, 2, number])).collect(),
                _ => Vec::new(),
            };
            let answer = reply(&question, 0x8180, &records);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    assert_eq!(at(&address).ask("many.example", soon()).unwrap().len(), 40);
}

#[test]
fn a_pointer_that_leads_round_is_no_name() {
    let mut bytes = message::question(7, "a.example", Kind::A);
    bytes[2] = 0x80;
    bytes[7] = 1;
    let place = bytes.len() as u8;
    bytes.extend([0xc0, place, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    assert_eq!(message::answer(&bytes, 7, "a.example", Kind::A), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut framed = message::question(7, "a.example", Kind::A);
        framed[2] = 0x80;
        framed[7] = 3;
        framed.extend(&bytes);
        let _ = message::answer(&framed, 7, "a.example", Kind::A);
        let _ = message::answer(&bytes, 7, "a.example", Kind::A);
    }
}
