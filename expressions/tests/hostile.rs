//! Readers of what others wrote get what nobody would write: seeds, cut and joined in ways that are the same every time. The long
//! search is `cargo fuzz` in `fuzz/`, or this with `HOSTILE_SECONDS=60`.

#[path = "../../fuzz/readers.rs"]
mod readers;

use std::path::Path;
use std::time::{Duration, Instant};

use expressions::{Sources, check_text};

/// Small numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(b'n') => bytes.push(b'\n'),
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.expect("two digits")));
                    bytes.push(u8::from_str_radix(&String::from_iter(digits), 16).expect("hexadecimal digits"));
                }
                other => bytes.extend(other),
            },
            _ => bytes.push(byte),
        }
    }
    bytes
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/expressions")
}

/// Finds of earlier searches, and what we wrote to be read.
fn seeds() -> Vec<Vec<u8>> {
    let finds = std::fs::read_to_string(fixtures().join("hostile.txt")).expect("the finds are there");
    let mut seeds: Vec<_> = finds.lines().map(unescaped).collect();
    for folder in ["okay", "fail", "language/okay"] {
        let mut files: Vec<_> = std::fs::read_dir(fixtures().join(folder))
            .expect("fixtures")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        seeds.extend(files.iter().filter(|file| file.is_file()).map(|file| std::fs::read(file).expect("a fixture")));
    }
    seeds
}

/// Something like the seeds.
fn mutant(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    const PIECES: &[&str] = &[
        "\"",
        "''",
        "${",
        "}",
        "{",
        "(",
        ")",
        "[",
        "]",
        ";",
        ":",
        "=",
        ".",
        "..",
        "/",
        "//",
        "-",
        "\\",
        "$",
        "'",
        "or",
        " rec ",
        " let ",
        " in ",
        " inherit ",
        "\n",
        "\r",
        "\t",
        " ",
        "#",
        "/*",
        "*/",
        "<",
        ">",
        "0",
        "1e9",
        "~/",
        "\0",
        "\u{e9}",
        "@",
        "?",
        "!",
        "__curPos",
        "builtins.",
        "toString ",
        "*",
        "+",
        "{1,3}",
        "|",
        "^",
        "u0000",
        "map (x: x) ",
        "\u{feff}",
    ];
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    bytes.truncate(2000);
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len() + 1);
        let to = (at + numbers.below(12)).min(bytes.len());
        match numbers.below(7) {
            0 => _ = bytes.splice(at..to, []),
            1 => _ = bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].bytes()),
            2 => _ = bytes.splice(at..to, PIECES[numbers.below(PIECES.len())].bytes()),
            3 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len() + 1);
                let until = (from + numbers.below(60)).min(other.len());
                bytes.splice(at..to, other[from..until].iter().copied());
            }
            4 => {
                let copy = bytes[at..to].repeat(1 + numbers.below(40));
                bytes.splice(at..at, copy);
            }
            5 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn nothing_that_is_read_makes_a_reader_stumble() {
    let seeds = seeds();
    let seconds =
        std::env::var("HOSTILE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let start = if seconds.is_some() { std::process::id().into() } else { 7 };
    for (name, reader) in readers::READERS {
        let mut numbers = Numbers(start);
        let try_one = |bytes: &[u8]| {
            let started = Instant::now();
            let result = std::panic::catch_unwind(|| reader(bytes));
            assert!(result.is_ok(), "{name}: {}", bytes.escape_ascii());
            // Seconds at most where others leave the processor alone; a program that compares all with all would take hours.
            assert!(started.elapsed() < Duration::from_secs(180), "{name} takes too long: {}", bytes.escape_ascii());
        };
        seeds.iter().for_each(|seed| try_one(seed));
        let started = Instant::now();
        let mut count = 0;
        while seconds.map_or(count < 400, |seconds| started.elapsed() < seconds) {
            try_one(&mutant(&mut numbers, &seeds));
            count += 1;
        }
        if seconds.is_some() {
            eprintln!("{name}: {count} rounds");
        }
    }
}

/// What is deeper or longer than anyone writes is refused or read, in little time.
#[test]
fn depth_and_length_are_bounded() {
    let nested = |open: &str, middle: &str, close: &str, depth: usize| {
        [open.repeat(depth), middle.to_owned(), close.repeat(depth)].concat()
    };
    let many = 100_000;
    let texts = [
        nested("[", "", "]", many),
        nested("(", "1", ")", many),
        nested("{ a = ", "1", "; }", many),
        nested("\"${", "a", "}\"", many),
        nested("''${", "a", "}''", many),
        nested("a: ", "a", "", many),
        nested("{ a ? ", "1", " }: 1", many),
        nested("if ", "true", " then 1 else 2", many),
        nested("let a = ", "1", "; in a", many),
        nested("a.b or ", "1", "", many),
        nested("-", "1", "", many),
        nested("!", "1", "", many),
        nested("1 + ", "1", "", many),
        nested("1 ++ ", "1", "", many),
        nested("1 -> ", "1", "", many),
        nested("a ", "a", "", many),
        nested("a.", "a", "", many),
        nested("(a ", "a", " [ ])", 10_000),
        nested("assert ", "1", "; 1", many),
        nested("with a; ", "1", "", many),
        format!("{{ {}a = 1; }}", "a.".repeat(many)),
        format!("{{ {} }}", "a.b.c = 1; ".repeat(many)),
        format!("{{ {} }}", (0..many).map(|number| format!("a.x{number} = 1; b{number} = 2; ")).collect::<String>()),
        format!("{{ {} }}: 1", (0..many).map(|number| format!("a{number}, ")).collect::<String>()),
        format!(
            "{{ a = {{ {0} }}; a = {{ {0} }}; }}",
            (0..20).map(|number| format!("x{number} = {{ }}; ")).collect::<String>()
        ),
        "/* ".repeat(many),
        "''".repeat(many),
        "a/".repeat(many),
        "<a".repeat(many),
        "''$".repeat(many),
        "$".repeat(many),
        " ''\n".repeat(many),
    ];
    for text in texts {
        let started = Instant::now();
        check_text("text".into(), text.clone().into_bytes(), Path::new("/d"), &Sources::pure("/nowhere"));
        let shown = &text[..text.len().min(60)];
        // Seconds at most where others leave the processor alone; a program that compares all with all would take hours.
        assert!(started.elapsed() < Duration::from_secs(180), "{shown} took {:?}", started.elapsed());
    }
}
