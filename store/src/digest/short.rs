//! BLAKE3 of what is short, without asking the processor what it can do.
//!
//! The crate `blake3` asks before it hashes anything, and a virtual machine takes 6 µs for each answer: 45 µs in all, more than a
//! hundredth of what it takes to run a program in a formation, whose record is some hundred bytes. One chunk gains nothing by the answers.
//! The names are those of the specification (BLAKE3, one function, fast everywhere; sections 2.1 to 2.3).

/// How many bytes a chunk has at most.
const CHUNK: usize = 1024;
const BLOCK: usize = 64;

const IV: [u32; 8] = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19];
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

const CHUNK_START: u32 = 1 << 0;
const CHUNK_END: u32 = 1 << 1;
const ROOT: u32 = 1 << 3;
const DERIVE_KEY_CONTEXT: u32 = 1 << 5;
const DERIVE_KEY_MATERIAL: u32 = 1 << 6;

/// As `blake3::derive_key`, of whatever length both are.
pub fn derive_key(context: &str, material: &[u8]) -> [u8; 32] {
    if context.len().max(material.len()) > CHUNK {
        return blake3::derive_key(context, material);
    }
    let key = only_chunk(IV, context.as_bytes(), DERIVE_KEY_CONTEXT);
    let words = only_chunk(key, material, DERIVE_KEY_MATERIAL).map(u32::to_le_bytes);
    std::array::from_fn(|index| words[index / 4][index % 4])
}

/// The chaining value of a chunk that is the root of its tree.
fn only_chunk(key: [u32; 8], bytes: &[u8], mode: u32) -> [u32; 8] {
    // Even nothing is a block.
    let last = bytes.len().div_ceil(BLOCK).max(1) - 1;
    (0..=last).fold(key, |value, number| {
        let block = &bytes[number * BLOCK..bytes.len().min((number + 1) * BLOCK)];
        let start = if number == 0 { CHUNK_START } else { 0 };
        let end = if number == last { CHUNK_END | ROOT } else { 0 };
        compress(value, words(block), block.len() as u32, mode | start | end)
    })
}

/// The words of a block, filled up with zeros.
fn words(block: &[u8]) -> [u32; 16] {
    let mut bytes = [0; BLOCK];
    bytes[..block.len()].copy_from_slice(block);
    std::array::from_fn(|index| u32::from_le_bytes(std::array::from_fn(|byte| bytes[index * 4 + byte])))
}

/// Of the first chunk, whose number is 0.
fn compress(value: [u32; 8], mut words: [u32; 16], length: u32, flags: u32) -> [u32; 8] {
    let mut state = [0; 16];
    state[..8].copy_from_slice(&value);
    state[8..12].copy_from_slice(&IV[..4]);
    state[14..].copy_from_slice(&[length, flags]);
    for _ in 0..7 {
        for (column, pair) in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]].into_iter().zip(0..) {
            mix(&mut state, column, words[2 * pair], words[2 * pair + 1]);
        }
        for (diagonal, pair) in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]].into_iter().zip(4..) {
            mix(&mut state, diagonal, words[2 * pair], words[2 * pair + 1]);
        }
        words = PERMUTATION.map(|from| words[from]);
    }
    std::array::from_fn(|index| state[index] ^ state[index + 8])
}

/// The quarter-round.
fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], x: u32, y: u32) {
    for (word, turns) in [(x, [16, 12]), (y, [8, 7])] {
        state[a] = state[a].wrapping_add(state[b]).wrapping_add(word);
        state[d] = (state[d] ^ state[a]).rotate_right(turns[0]);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_right(turns[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_crate_gives_whatever_the_length() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(2 * CHUNK).collect();
        let text = "a context of its own, as long as it is ".repeat(60);
        for length in 0..bytes.len() {
            let (context, material) = (&text[..length.min(text.len())], &bytes[..length]);
            for (context, material) in
                [("", material), ("short", material), (context, &bytes[..100]), (context, material)]
            {
                assert_eq!(derive_key(context, material), blake3::derive_key(context, material), "{length}");
            }
        }
    }
}
