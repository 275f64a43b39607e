//! POSIX access control lists, as `system.posix_acl_*` holds them: a version, then entries of tag, permissions and id, all
//! little-endian (`linux/posix_acl_xattr.h`).

use rustix::io::Errno;

use super::sys::Result;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// An access control list that the kernel would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let (version, entries) = bytes.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        if entries.len() % 8 != 0 {
            return Err(Errno::INVAL);
        }
        let entries: Vec<Entry> = entries
            .chunks_exact(8)
            .map(|bytes| Entry {
                tag: u16::from_le_bytes([bytes[0], bytes[1]]),
                permissions: u16::from_le_bytes([bytes[2], bytes[3]]),
                id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let acl = Self { entries };
        if acl.is_valid() { Ok(acl) } else { Err(Errno::INVAL) }
    }

    /// Tags in order, ids without repetition, the three of a mode once each, and a mask if anybody is named (posix_acl_valid).
    fn is_valid(&self) -> bool {
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        let in_order = self.entries.windows(2).all(|pair| {
            pair[0].tag < pair[1].tag
                || (pair[0].tag == pair[1].tag && matches!(pair[0].tag, USER | GROUP) && pair[0].id != pair[1].id)
        });
        let has = |tag| self.entries.iter().any(|entry| entry.tag == tag);
        let complete = has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER) && (has(MASK) || !(has(USER) || has(GROUP)));
        let known_only = self.entries.iter().all(|entry| known.contains(&entry.tag) && entry.permissions <= 7);
        self.entries.is_empty() || (in_order && complete && known_only)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a mode says all of it.
    pub(super) fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    fn permissions(&self, tag: u16) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// The permission bits that a file with this list shows.
    pub(super) fn mode(&self) -> u32 {
        let get = |tag| u32::from(self.permissions(tag).unwrap_or(0));
        let group = self.permissions(MASK).map_or_else(|| get(GROUP_OBJ), u32::from);
        get(USER_OBJ) << 6 | group << 3 | get(OTHER)
    }

    fn set(&mut self, tag: u16, permissions: u32) {
        for entry in self.entries.iter_mut().filter(|entry| entry.tag == tag) {
            entry.permissions = permissions as u16 & 7;
        }
    }

    /// The list after the file's mode was changed to this.
    pub(super) fn with_mode(mut self, mode: u32) -> Self {
        self.set(USER_OBJ, mode >> 6);
        self.set(OTHER, mode);
        self.set(if self.permissions(MASK).is_some() { MASK } else { GROUP_OBJ }, mode >> 3);
        self
    }

    /// The list of a file made with this mode in a directory that hands this list on.
    pub(super) fn inherited(mut self, mode: u32) -> Self {
        let shown = self.mode();
        let group = if self.permissions(MASK).is_some() { MASK } else { GROUP_OBJ };
        let allowed = shown & mode;
        self.set(USER_OBJ, allowed >> 6);
        self.set(group, allowed >> 3);
        self.set(OTHER, allowed);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        let entries = entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect();
        Acl { entries }
    }

    const NO_ID: u32 = u32::MAX;

    #[test]
    fn the_mask_is_what_the_group_bits_show() {
        let list =
            acl(&[(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 4, NO_ID), (GROUP, 5, 4), (MASK, 5, NO_ID), (OTHER, 0, NO_ID)]);
        assert_eq!(Acl::parse(&list.encode()), Ok(list.clone()));
        assert_eq!(list.mode(), 0o750);
        assert!(!list.is_minimal());
        let changed = list.clone().with_mode(0o604);
        assert_eq!(changed.mode(), 0o604);
        assert_eq!(changed.permissions(GROUP_OBJ), Some(4), "the owning group keeps what the mask hides");
        assert_eq!(list.inherited(0o666).mode(), 0o640);
    }

    #[test]
    fn lists_that_the_kernel_refuses_are_refused() {
        let named_without_mask = acl(&[(USER_OBJ, 7, NO_ID), (USER, 7, 1), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]);
        let twice = acl(&[(USER_OBJ, 7, NO_ID), (USER_OBJ, 7, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]);
        for bad in [&named_without_mask.encode()[..], &twice.encode(), b"", b"\x02\0\0\0x", b"\x03\0\0\0"] {
            assert!(Acl::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Acl::parse(b"\x02\0\0\0").unwrap().is_empty());
    }
}
