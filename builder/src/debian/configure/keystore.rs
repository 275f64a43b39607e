//! Java's key stores in Sun's format (`sun.security.provider.JavaKeyStore`), with the times at which their certificates
//! were added set to the time that every file shows.
//!
//! ```text
//! FE ED FE ED  version u32 (2)  count u32
//! each:  tag u32 (2: a trusted certificate)  alias  time u64, in ms since 1970  type  length u32, certificate
//! SHA-1 of the password in UTF-16, "Mighty Aphrodite", and all the above
//! ```
//! Numbers are big-endian; alias and type are a u16 length and so many bytes.

use sha1::{Digest, Sha1};

/// The password that Debian's `ca-certificates-java` gives its store; it is no secret, only a check sum's salt.
const PASSWORD: &str = "changeit";
/// 1980-01-02 00:00 UTC.
const TIME: u64 = 315_619_200_000;

/// The same key store with every time set; none if these bytes are not a store of trusted certificates under that password.
pub fn without_times(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(20)?)?;
    if check_sum(body) != sum {
        return None;
    }
    let mut out = body.to_vec();
    let mut at = 0_usize;
    let mut take = |length: usize| {
        let range = at..at.checked_add(length).filter(|end| *end <= body.len())?;
        at = range.end;
        Some(range)
    };
    if body[take(4)?] != [0xfe, 0xed, 0xfe, 0xed] || body[take(4)?] != 2_u32.to_be_bytes() {
        return None;
    }
    let u16_at = |range: std::ops::Range<usize>| Some(usize::from(u16::from_be_bytes(body[range].try_into().ok()?)));
    let u32_at = |range: std::ops::Range<usize>| usize::try_from(u32::from_be_bytes(body[range].try_into().ok()?)).ok();
    for _ in 0..u32_at(take(4)?)? {
        if u32_at(take(4)?)? != 2 {
            return None;
        }
        let alias = u16_at(take(2)?)?;
        take(alias)?;
        out[take(8)?].copy_from_slice(&TIME.to_be_bytes());
        let kind = u16_at(take(2)?)?;
        take(kind)?;
        let length = u32_at(take(4)?)?;
        take(length)?;
    }
    if take(1).is_some() {
        return None;
    }
    let sum = check_sum(&out);
    out.extend(sum);
    Some(out)
}

fn check_sum(body: &[u8]) -> [u8; 20] {
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    Sha1::new().chain_update(password).chain_update(b"Mighty Aphrodite").chain_update(body).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(time: u64, certificates: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [0xfeed_feed_u32, 2, certificates.len() as u32].map(u32::to_be_bytes).concat();
        for certificate in certificates {
            bytes.extend([0, 0, 0, 2, 0, 1, b'a']);
            bytes.extend(time.to_be_bytes());
            bytes.extend([0, 5]);
            bytes.extend(b"X.509");
            bytes.extend((certificate.len() as u32).to_be_bytes());
            bytes.extend(*certificate);
        }
        let sum = check_sum(&bytes);
        bytes.extend(sum);
        bytes
    }

    #[test]
    fn stores_that_differ_in_times_become_the_same() {
        let certificates: [&[u8]; 2] = [b"one", b""];
        let one = without_times(&store(1, &certificates)).unwrap();
        assert_eq!(without_times(&store(2, &certificates)).unwrap(), one);
        assert_eq!(one, store(TIME, &certificates));
    }

    #[test]
    fn what_is_no_such_store_is_left_alone() {
        let good = store(1, &[b"one"]);
        for end in 0..good.len() {
            assert_eq!(without_times(&good[..end]), None, "{end}");
        }
        let mut damaged = good.clone();
        damaged[40] ^= 1;
        assert_eq!(without_times(&damaged), None);
        // A count that is too large, under a right check sum.
        let mut body = good[..good.len() - 20].to_vec();
        body[11] = 9;
        let sum = check_sum(&body);
        body.extend(sum);
        assert_eq!(without_times(&body), None);
    }
}
