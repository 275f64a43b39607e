//! Questions and answers of the domain name system (RFC 1035, section 4). An answer is bytes from anyone: every length is checked,
//! a pointer leads only backwards, and aliases are followed a few times.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These; none if the name has other things than addresses of this kind.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    Unknown,
    /// Another server may know better.
    Refused,
    /// It did not fit.
    Cut,
}

const ALIAS: u16 = 5;
const INTERNET: u16 = 1;
/// Longer chains are loops.
const MOST_ALIASES: usize = 16;
/// A resolver wants a few addresses, a server may send thousands.
const MOST_ADDRESSES: usize = 64;

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

/// Whether it can be asked for: labels of 1 to 63 bytes without spaces and control characters, 253 bytes in all.
pub fn is_name(name: &str) -> bool {
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A number that others cannot guess: it is what tells the answer from a forged one, beside the port.
pub fn random() -> u16 {
    // The standard library's keys are of the kernel's random numbers, and new for every state.
    RandomState::new().build_hasher().finish() as u16
}

/// A question, with recursion desired.
pub fn question(number: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 18);
    for word in [number, 0x0100, 1, 0, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    bytes
}

/// What an answer says; nothing if it does not answer this question or is not an answer.
pub fn answer(bytes: &[u8], number: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { bytes, position: 0 };
    let (found, flags) = (reader.word()?, reader.word()?);
    let (questions, answers) = (reader.word()?, reader.word()?);
    reader.skip(4)?;
    let is_answer = flags & 0x8000 != 0;
    if found != number || !is_answer || questions != 1 {
        return None;
    }
    let asked = reader.name()?;
    if !asked.eq_ignore_ascii_case(name) || reader.word()? != kind.number() || reader.word()? != INTERNET {
        return None;
    }
    match flags & 0x000f {
        0 => {}
        3 => return Some(Answer::Unknown),
        _ => return Some(Answer::Refused),
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Cut);
    }
    let mut aliases: Vec<(String, String)> = Vec::new();
    let mut addresses: Vec<(String, IpAddr)> = Vec::new();
    for _ in 0..answers {
        let owner = reader.name()?.to_ascii_lowercase();
        let (found, class) = (reader.word()?, reader.word()?);
        reader.skip(4)?;
        let length = usize::from(reader.word()?);
        let end = reader.position.checked_add(length).filter(|end| *end <= bytes.len())?;
        let content = &bytes[reader.position..end];
        if class == INTERNET && found == ALIAS && aliases.len() < MOST_ALIASES {
            let target = Reader { bytes, position: reader.position }.name()?;
            aliases.push((owner, target.to_ascii_lowercase()));
        } else if class == INTERNET && found == kind.number() && addresses.len() < MOST_ADDRESSES {
            let address = match kind {
                Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?).into(),
                Kind::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?).into(),
            };
            addresses.push((owner, address));
        }
        reader.position = end;
    }
    // Only what the name leads to counts: an answer may carry other names' addresses.
    let mut current = name.to_ascii_lowercase();
    for _ in 0..MOST_ALIASES {
        match aliases.iter().find(|(owner, _)| *owner == current) {
            Some((_, target)) => current.clone_from(target),
            None => break,
        }
    }
    Some(Answer::Addresses(addresses.into_iter().filter(|(owner, _)| *owner == current).map(|(_, it)| it).collect()))
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u16> {
        let bytes = self.bytes.get(self.position..self.position + 2)?;
        self.position += 2;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.position = self.position.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }

    /// A name, which may end in a pointer to an earlier one.
    fn name(&mut self) -> Option<String> {
        let mut name = Vec::new();
        let (mut position, mut after, mut bound) = (self.position, None, self.position);
        loop {
            let length = usize::from(*self.bytes.get(position)?);
            match length {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(position + 1..position + 1 + length)?;
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend_from_slice(label);
                    if name.len() > 255 {
                        return None;
                    }
                    position += 1 + length;
                }
                192.. => {
                    let low = usize::from(*self.bytes.get(position + 1)?);
                    let target = (length & 0x3f) << 8 | low;
                    after.get_or_insert(position + 2);
                    // Every pointer leads to before the last: so the walk ends.
                    if target >= bound {
                        return None;
                    }
                    (position, bound) = (target, target);
                }
                _ => return None,
            }
        }
        self.position = after.unwrap_or(position + 1);
        String::from_utf8(name).ok()
    }
}
