//! Postfix's tables in files of Berkeley DB, without what differs each time: the number that says which file of its environment one is,
//! and the time at which it was written.
//!
//! ```text
//! page:  …  at 12 magic u32  …  at 20 size of a page u32  …  at 52 number, 20 bytes        of pages that describe a table
//! items: 01 "1795373998"  01 "YP_LAST_MODIFIED"        what postalias(1) and postmap(1) add, value before key
//! ```
//! Numbers are in the byte order of the machine. Described in Berkeley DB's `dbinc/db_page.h` (`DBMETA`).

use std::ops::Range;

const MAGICS: [u32; 2] = [0x0006_1561, 0x0005_3162];
const MAGIC: Range<usize> = 12..16;
const PAGE_SIZE: Range<usize> = 20..24;
const NUMBER: Range<usize> = 52..72;
const KEY: &[u8] = b"\x01YP_LAST_MODIFIED";
/// 1980-01-02 00:00 UTC, in seconds, as long as a time of our days.
const TIME: &[u8; 10] = b"0315619200";

/// The same table; none if these bytes are none of Berkeley DB's.
pub fn without_times(bytes: &[u8]) -> Option<Vec<u8>> {
    let number = |page: &[u8], at: Range<usize>| Some(u32::from_le_bytes(page.get(at)?.try_into().ok()?));
    let describes = |page: &[u8]| number(page, MAGIC).is_some_and(|magic| MAGICS.contains(&magic));
    let size = usize::try_from(number(bytes, PAGE_SIZE)?).ok()?;
    if !describes(bytes) || !(512..=64 << 10).contains(&size) {
        return None;
    }
    let mut out = bytes.to_vec();
    for page in out.chunks_exact_mut(size).filter(|page| describes(page)) {
        page[NUMBER].fill(0);
    }
    let keys = out.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY).map(|(at, _)| at);
    for key in keys.collect::<Vec<_>>() {
        if let Some(value) = key.checked_sub(TIME.len()).and_then(|start| out.get_mut(start..key))
            && value.iter().all(u8::is_ascii_digit)
        {
            value.copy_from_slice(TIME);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u8, time: &[u8; 10]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512];
        for page in [0, 2] {
            let page = &mut bytes[page * 512..];
            page[MAGIC].copy_from_slice(&MAGICS[0].to_le_bytes());
            page[PAGE_SIZE].copy_from_slice(&512_u32.to_le_bytes());
            page[NUMBER].fill(number);
        }
        let item = [b"\x01", &time[..], KEY].concat();
        bytes[1024 - item.len()..1024].copy_from_slice(&item);
        bytes
    }

    #[test]
    fn tables_of_the_same_are_the_same() {
        let [one, other] =
            [table(7, b"1795373998"), table(9, b"1795374111")].map(|bytes| without_times(&bytes).unwrap());
        assert_eq!(one, other);
        assert_eq!(without_times(&one), Some(one.clone()));
        assert_eq!(one.len(), 3 * 512);
    }

    #[test]
    fn what_is_no_table_is_left_as_it_is() {
        let whole = table(7, b"1795373998");
        let mut huge = whole.clone();
        huge[PAGE_SIZE].fill(0xff);
        let mut zero = whole.clone();
        zero[PAGE_SIZE].fill(0);
        for bytes in [&b""[..], b"root: postmaster\n", &whole[..20], &huge, &zero] {
            assert_eq!(without_times(bytes), None);
        }
        // A value that is no time stays, and so does a key at the very beginning.
        let mut named = table(7, b"17953x3998");
        named[0..KEY.len().min(12)].copy_from_slice(&KEY[..12]);
        assert!(without_times(&named).unwrap().windows(10).any(|window| window == b"17953x3998"));
    }
}
