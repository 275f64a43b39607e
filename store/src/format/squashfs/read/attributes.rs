//! Extended attributes: each inode has the number of a set, many inodes the same.

use std::collections::BTreeMap;

use super::{Cursor, Image, Reference, Region, Superblock};
use crate::Result;

/// Where the sets are found.
#[derive(Debug)]
pub(super) struct Table {
    /// Of the values.
    values: u64,
    count: u32,
    /// The list of where the sets' blocks begin.
    list: u64,
}

/// Sets in a metadata block, of 16 bytes each.
const SETS_IN_BLOCK: u32 = 512;
/// Bit of an attribute's kind: the value lies elsewhere.
const ELSEWHERE: u16 = 0x100;
/// The longest value: as much as Linux takes, and room for the encoding of a formation.
const LONGEST_VALUE: u32 = 1 << 20;
/// The most that an inode's attributes may be together.
const LARGEST_SET: usize = 4 << 20;

impl Table {
    pub fn open(region: &Region, superblock: &Superblock) -> Result<Option<Self>> {
        let Some(at) = superblock.attribute_table else { return Ok(None) };
        let mut header = [0; 16];
        region.read(at, &mut header)?;
        let values = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        let count = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        Ok(Some(Self { values, count, list: at + 16 }))
    }

    pub fn read(&self, image: &Image, number: u32) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let region = &image.region;
        if number >= self.count {
            return Err(region.bad(format!("attributes {number} of {} are named", self.count)));
        }
        let block = super::pointer(region, self.list, u64::from(number / SETS_IN_BLOCK))?;
        let mut cursor = Cursor::new(&image.metadata, block, (number % SETS_IN_BLOCK) as usize * 16);
        let (reference, count, _size) = (Reference::decode(cursor.u64()?), cursor.u32()?, cursor.u32()?);
        let mut cursor = image.cursor(self.values, reference)?;
        let mut attributes = BTreeMap::new();
        let mut taken = 0;
        for _ in 0..count {
            let kind = cursor.u16()?;
            let length = cursor.u16()?;
            let mut name = match kind & !ELSEWHERE {
                0 => b"user.".to_vec(),
                1 => b"trusted.".to_vec(),
                2 => b"security.".to_vec(),
                other => return Err(region.bad(format!("there is no attribute of kind {other}"))),
            };
            name.extend(cursor.bytes(length.into())?);
            let length = cursor.u32()?;
            let value = if kind & ELSEWHERE == 0 {
                value(region, &mut cursor, length)?
            } else if length == 8 {
                let mut elsewhere = image.cursor(self.values, Reference::decode(cursor.u64()?))?;
                let length = elsewhere.u32()?;
                value(region, &mut elsewhere, length)?
            } else {
                return Err(region.bad(format!("the place of an attribute's value has {length} bytes")));
            };
            // An entry takes room also where it is short.
            taken += name.len() + value.len() + 64;
            if taken > LARGEST_SET {
                return Err(region.bad("the attributes of an inode have no end"));
            }
            if name.contains(&0) || attributes.insert(name, value).is_some() {
                return Err(region.bad("an attribute's name is none, or there twice"));
            }
        }
        Ok(attributes)
    }
}

fn value(region: &Region, cursor: &mut Cursor<'_>, length: u32) -> Result<Vec<u8>> {
    if length > LONGEST_VALUE {
        return Err(region.bad(format!("an attribute has {length} bytes")));
    }
    cursor.bytes(length as usize)
}
