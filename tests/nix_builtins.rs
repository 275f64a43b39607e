//! Builders that Nix has in itself.

use crate::world::World;

/// A Nix archive of one file: words with their lengths, padded to eight bytes.
fn archive(content: &[u8], executable: bool) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"regular"];
    if executable {
        words.extend([b"executable".as_slice(), b""]);
    }
    words.extend([b"contents".as_slice(), content, b")"]);
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend((word.len() as u64).to_le_bytes());
        bytes.extend(word);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

#[test]
fn what_is_fetched_is_unpacked_from_a_nix_archive() {
    let world = World::new();
    let expression = |file: &str, more: &str| {
        let path = world.path("project").join(file);
        format!(
            r#"derivation {{
  name = "seed";
  system = "builtin";
  builder = "builtin:fetchurl";
  url = "file://{}";
  unpack = true;
  outputHashMode = "recursive";
  outputHashAlgo = "sha256";
  {more}
}}
"#,
            path.display()
        )
    };
    // The hash of the output is that of the archive as it would be written again.
    let (plain, program) = (archive(b"content", false), archive(b"content", true));
    for (name, bytes) in [("plain.nar", &plain), ("program.nar", &program), ("cut.nar", &plain[..50].to_vec())] {
        std::fs::write(world.write(name, ""), bytes).unwrap();
    }
    for (file, expected, more) in [
        ("plain.nar", "plain.nar", ""),
        ("program.nar", "program.nar", ""),
        // Made executable, whatever the archive says.
        ("plain.nar", "program.nar", "executable = true;"),
    ] {
        let hash = format!("outputHash = builtins.hashFile \"sha256\" ./{expected}; {more}");
        world.write("fetch.nix", &expression(file, &hash));
        world.forge(["build", "fetch.nix"]).ok();
    }
    world.write("fetch.nix", &expression("cut.nar", "outputHash = builtins.hashString \"sha256\" \"other\";"));
    let cut = world.forge(["build", "fetch.nix"]);
    assert!(cut.code != Some(0) && cut.stderr.contains("cut short"), "{}", cut.stderr);
    world.write("fetch.nix", &expression("plain.nar", "outputHash = builtins.hashString \"sha256\" \"another\";"));
    assert_eq!(world.forge(["build", "fetch.nix"]).code, Some(102));
}
