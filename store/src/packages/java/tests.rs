use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;

/// A zip archive of these files, deflated, with this much in front of it.
fn zip(before: &[u8], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = before.to_vec();
    let mut directory = Vec::new();
    for (name, content) in files {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let at = (bytes.len() - before.len()) as u32;
        let mut shared = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        shared.extend((packed.len() as u32).to_le_bytes());
        shared.extend((content.len() as u32).to_le_bytes());
        shared.extend((name.len() as u16).to_le_bytes());
        shared.extend([0, 0]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&shared);
        bytes.extend(name.as_bytes());
        bytes.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&shared);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let offset = (bytes.len() - before.len()) as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([(files.len() as u16).to_le_bytes(), (files.len() as u16).to_le_bytes()].concat());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn short(bytes: &[u8], name: &str) -> Vec<String> {
    let found = packages(Cursor::new(bytes), name);
    let line = |package: &Package| {
        let digest = package.checksums.first().map_or("-", |sum| &sum.digest[..8]);
        format!("{} {} [{}] {}", package.name, package.version, package.licences.join("|"), digest)
    };
    found.iter().map(line).collect()
}

const GSON: (&str, &[u8]) = (
    "META-INF/maven/com.google.code.gson/gson/pom.properties",
    b"#made\r\nversion=2.10.1\r\ngroupId=com.google.code.gson\r\nartifactId=gson\r\n",
);
const GSON_PROJECT: (&str, &[u8]) = (
    "META-INF/maven/com.google.code.gson/gson/pom.xml",
    b"<project><parent><url>no</url></parent><url>https://g.example</url><licenses>\n<license><name>\n Apache-2.0</name>\n<url>u</url></license>\
      <license><name>A &amp; B</name></license></licenses><dependencies><url>no</url></dependencies></project>",
);

#[test]
fn an_archive_is_what_it_says() {
    let sum = |bytes: &[u8]| to_hex(&Sha256::digest(bytes))[..8].to_owned();
    let maven = zip(b"", &[("a.class", b"x"), GSON, GSON_PROJECT]);
    let expected = format!("com.google.code.gson:gson 2.10.1 [A & B|Apache-2.0] {}", sum(&maven));
    assert_eq!(short(&maven, "gson.jar"), [expected.as_str()]);
    assert_eq!(packages(Cursor::new(&maven), "gson.jar")[0].homepage, "https://g.example");

    // A line of a manifest goes on in the next; a program stands before the archive.
    let manifest = b"Manifest-Version: 1.0\r\nBundle-SymbolicName: org.example.\r\n long;singleton:=true\r\nBundle-Version: 3.1\r\n\
        Bundle-License: \"Apache-2.0\";link=\"https://x\", https://www.eclipse.org/legal/epl-v20.html\r\nBundle-Vendor: Some, Inc.\r\n\r\nName: a\r\nBundle-Version: 9\r\n";
    let bundle = zip(b"#!/bin/sh\nexec java -jar $0\n", &[("META-INF/MANIFEST.MF", manifest)]);
    assert_eq!(short(&bundle, "x.jar"), [format!("org.example.long 3.1 [Apache-2.0|EPL-2.0] {}", sum(&bundle))]);
    assert_eq!(packages(Cursor::new(&bundle), "x.jar")[0].supplier, "Some, Inc.");

    // Without either there is its name; what lies in it is found, and keeps its own digest.
    let web = zip(b"", &[("WEB-INF/lib/gson-2.jar", &maven), ("WEB-INF/lib/broken.jar", b"PK")]);
    assert_eq!(short(&web, "my-shop-1.4-rc.war"), [format!("my-shop 1.4-rc [] {}", sum(&web)), expected]);
    // Of several records its own is the one that is called as the file is; the others have no file.
    let other = ("META-INF/maven/a/b/pom.properties", &b"groupId=a\nartifactId=b\nversion=1"[..]);
    let shaded = zip(b"", &[GSON, other]);
    assert_eq!(
        short(&shaded, "b-1.jar"),
        [format!("a:b 1 [] {}", sum(&shaded)), "com.google.code.gson:gson 2.10.1 [] -".to_owned()]
    );
    assert_eq!(short(&shaded, "all.jar").len(), 3);
    assert!(short(b"no archive", "x.jar").is_empty() && short(b"", "x.jar").is_empty());
}

#[test]
fn bytes_from_outside_end_and_take_no_memory() {
    // Zeros that unpack to more than a document may have are not read; archives in themselves have an end.
    let bomb = vec![0; 8 << 20];
    let bytes = zip(b"", &[("META-INF/MANIFEST.MF", &bomb)]);
    assert_eq!(short(&bytes, "bomb-1.jar").len(), 1);
    let mut nested = zip(b"", &[GSON]);
    for _ in 0..20 {
        nested = zip(b"", &[("a.jar", &nested)]);
    }
    assert_eq!(short(&nested, "a.jar").len(), DEEPEST + 1);
    let whole = zip(b"", &[GSON, GSON_PROJECT, ("a.jar", &zip(b"", &[GSON]))]);
    for at in 0..whole.len() {
        packages(Cursor::new(&whole[..at]), "a.jar");
        for bits in [1, 128, 255] {
            let mut changed = whole.clone();
            changed[at] ^= bits;
            packages(Cursor::new(&changed), "a.jar");
        }
    }
}
