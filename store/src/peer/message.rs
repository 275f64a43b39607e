//! The questions that one forge asks another, as bytes. Drawn in `docs/formats/peer.md`.

use std::io::Read;

use super::ObjectId;
use super::outgoing::{Item, kind_byte};
use crate::encoding::{DecodeError, Reader, Writer};
use crate::{BlobId, FormationId};

/// A question is never longer: a million objects, and more.
pub const MOST_QUESTION: u64 = 96 << 20;

/// Reads a question as a whole, if it is not too long.
pub fn read_question(input: &mut dyn Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    input.take(MOST_QUESTION + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MOST_QUESTION).then_some(bytes))
}

/// "What lies below these, without what lies below those?"
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Below {
    /// What is wanted.
    pub goals: Vec<ObjectId>,
    /// Formations that the asker has with all below them.
    pub bases: Vec<FormationId>,
}

/// "Which of these do you lack?"
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacks {
    /// Formations that the asker has, and the other may have.
    pub bases: Vec<FormationId>,
    /// Whether what lies below the first of them is left out of the list, as if the other had it.
    pub without_first: bool,
    /// What is to be given.
    pub objects: Vec<ObjectId>,
}

/// The answer to [`Lacks`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacking {
    /// Of each base, whether it is there.
    pub bases: Vec<bool>,
    /// Of each object, whether it is lacking.
    pub objects: Vec<bool>,
    /// Pieces that are there of a large blob, by its place in the list.
    pub pieces: Vec<(u32, u64)>,
}

fn write_object(writer: &mut Writer, id: ObjectId) {
    writer.u8(kind_byte(id)).digest(id.as_bytes());
}

fn read_object(reader: &mut Reader<'_>) -> Result<ObjectId, DecodeError> {
    let at = reader.bad("kind of object");
    let byte = reader.u8("kind of object")?;
    let kind = ["blob", "tree", "delta", "formation"].into_iter().find(|kind| kind.as_bytes()[0] == byte);
    let digest = reader.digest("digest")?;
    kind.and_then(|kind| ObjectId::from_parts(kind, digest)).ok_or(at)
}

fn write_formations(writer: &mut Writer, formations: &[FormationId]) {
    writer.count(formations.len());
    formations.iter().for_each(|id| _ = writer.digest(id.as_bytes()));
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // The count is believed as far as something comes.
    (0..reader.u32("count")?).map(|_| read(reader)).collect()
}

fn write_bits(writer: &mut Writer, bits: &[bool]) {
    let bytes: Vec<u8> = bits
        .chunks(8)
        .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << at))
        .collect();
    writer.count(bits.len()).bytes(&bytes);
}

fn read_bits(reader: &mut Reader<'_>) -> Result<Vec<bool>, DecodeError> {
    let at = reader.bad("bits");
    let count = reader.u32("bits")? as usize;
    let bytes = reader.bytes("bits")?;
    if bytes.len() != count.div_ceil(8) {
        return Err(at);
    }
    Ok((0..count).map(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1).collect())
}

impl Below {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.count(self.goals.len());
        self.goals.iter().for_each(|id| write_object(&mut writer, *id));
        write_formations(&mut writer, &self.bases);
        writer.finish()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let goals = read_list(&mut reader, read_object)?;
        let bases = read_list(&mut reader, |reader| Ok(FormationId::from_bytes(reader.digest("formation")?)))?;
        reader.end()?;
        Ok(Self { goals, bases })
    }
}

impl Lacks {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        write_formations(&mut writer, &self.bases);
        writer.u8(u8::from(self.without_first)).count(self.objects.len());
        self.objects.iter().for_each(|id| write_object(&mut writer, *id));
        writer.finish()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let bases = read_list(&mut reader, |reader| Ok(FormationId::from_bytes(reader.digest("formation")?)))?;
        let without_first = reader.u8("flag")? == 1;
        let objects = read_list(&mut reader, read_object)?;
        reader.end()?;
        Ok(Self { bases, without_first, objects })
    }
}

impl Lacking {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        write_bits(&mut writer, &self.bases);
        write_bits(&mut writer, &self.objects);
        writer.count(self.pieces.len());
        self.pieces.iter().for_each(|(place, pieces)| _ = writer.u32(*place).u64(*pieces));
        writer.finish()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (bases, objects) = (read_bits(&mut reader)?, read_bits(&mut reader)?);
        let pieces = read_list(&mut reader, |reader| Ok((reader.u32("place")?, reader.u64("pieces")?)))?;
        reader.end()?;
        Ok(Self { bases, objects, pieces })
    }
}

/// "Give me these", as bytes.
pub fn encode_items(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.count(items.len());
    for item in items {
        write_object(&mut writer, item.id);
        writer.u64(item.pieces).u8(u8::from(item.before.is_some()));
        if let Some(before) = item.before {
            writer.digest(before.as_bytes());
        }
    }
    writer.finish()
}

/// From bytes.
pub fn decode_items(bytes: &[u8]) -> Result<Vec<Item>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let items = read_list(&mut reader, |reader| {
        let (id, pieces) = (read_object(reader)?, reader.u64("pieces")?);
        let before = match reader.u8("flag")? {
            0 => None,
            _ => Some(BlobId::from_bytes(reader.digest("blob")?)),
        };
        Ok(Item { id, before, pieces })
    })?;
    reader.end()?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_reads_back_and_no_cut_one_does() {
        let formation = FormationId::from_bytes([1; 32]);
        let objects: Vec<ObjectId> = ["blob", "tree", "delta", "formation"]
            .iter()
            .map(|kind| ObjectId::from_parts(kind, [2; 32]).unwrap())
            .collect();
        let below = Below { goals: objects.clone(), bases: vec![formation] };
        let lacks = Lacks { bases: vec![formation; 2], without_first: true, objects: objects.clone() };
        let lacking = Lacking { bases: vec![true, false], objects: vec![true; 9], pieces: vec![(1, 7)] };
        let items = vec![Item::whole(objects[1]), Item { id: objects[0], before: Some(BlobId::of(b"x")), pieces: 3 }];
        assert_eq!(Below::decode(&below.encode()).unwrap(), below);
        assert_eq!(Lacks::decode(&lacks.encode()).unwrap(), lacks);
        assert_eq!(Lacking::decode(&lacking.encode()).unwrap(), lacking);
        assert_eq!(decode_items(&encode_items(&items)).unwrap(), items);
        for bytes in [below.encode(), lacks.encode(), lacking.encode(), encode_items(&items)] {
            for length in 0..bytes.len() {
                let cut = &bytes[..length];
                assert!(Below::decode(cut).is_err() || Below::decode(&bytes).is_err());
                assert!(Lacks::decode(cut).is_err() || Lacks::decode(&bytes).is_err());
                assert!(Lacking::decode(cut).is_err() || Lacking::decode(&bytes).is_err());
                assert!(decode_items(cut).is_err() || decode_items(&bytes).is_err());
            }
        }
        // A count that nothing follows takes no memory.
        assert!(Lacks::decode(&[0xff; 8]).is_err());
    }
}
