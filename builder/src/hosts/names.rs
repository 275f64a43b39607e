//! Questions for names, as RFC 1035 has them, answered from what is allowed and from nowhere else.

use std::net::Ipv4Addr;

/// A question: its bytes, the name and whether an address of IPv4 is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Question<'a> {
    id: [u8; 2],
    /// Whether the asker wants recursion, which is told back.
    flags: u8,
    /// As it came, and goes back.
    section: &'a [u8],
    /// Lower case, without the last dot.
    pub name: String,
    /// Others have no answer, which is none the less an answer.
    pub wants_ipv4: bool,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The name has this address.
    Address(Ipv4Addr),
    /// The name is there, without what was asked for.
    Empty,
    /// There is no such name.
    Unknown,
}

const HEADER: usize = 12;
const IPV4: u16 = 1;
const INTERNET: u16 = 1;

/// Reads a question; none if it is something else.
pub fn read(message: &[u8]) -> Option<Question<'_>> {
    let header = message.get(..HEADER)?;
    let is_query = header[2] & 0xf8 == 0;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if !is_query || questions != 1 {
        return None;
    }
    let mut at = HEADER;
    let mut labels: Vec<String> = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            // Longer ones would be pointers, which a question has no use for.
            1..=63 => labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase()),
            _ => return None,
        }
        at += length;
    }
    let rest = message.get(at..at + 4)?;
    let [kind, class] = [[rest[0], rest[1]], [rest[2], rest[3]]].map(u16::from_be_bytes);
    Some(Question {
        id: [header[0], header[1]],
        flags: header[2] & 1,
        section: &message[HEADER..at + 4],
        name: labels.join("."),
        wants_ipv4: kind == IPV4 && class == INTERNET,
    })
}

/// The message that answers a question.
pub fn write(question: &Question<'_>, answer: Answer) -> Vec<u8> {
    const IS_ANSWER: u8 = 0x84;
    const RECURSION_AVAILABLE: u8 = 0x80;
    const NO_SUCH_NAME: u8 = 3;
    let code = if answer == Answer::Unknown { NO_SUCH_NAME } else { 0 };
    let answers = u8::from(matches!(answer, Answer::Address(_)));
    let mut message = question.id.to_vec();
    message.extend([IS_ANSWER | question.flags, RECURSION_AVAILABLE | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend(question.section);
    if let Answer::Address(address) = answer {
        // The name is the one at the beginning of the question; asked again each time.
        message.extend([0xc0, HEADER as u8, 0, IPV4 as u8, 0, INTERNET as u8, 0, 0, 0, 0, 0, 4]);
        message.extend(address.octets());
    }
    message
}
