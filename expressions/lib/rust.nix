# Rust: programs built from their `Cargo.lock`, without network.
{
  baseName,
  debian,
  download,
  fail,
  files,
  layer,
  run,
  source,
  step,
  wrong,
}:
let
  inherit (builtins)
    all
    concatStringsSep
    elem
    filter
    fromTOML
    head
    isAttrs
    isList
    isPath
    isString
    map
    match
    readFile
    replaceStrings
    toFile
    toJSON
    ;

  # Whatever is installed by `cargo install` of a directory, at /usr/local/bin.
  rust =
    arguments@{
      source,
      lock ? source + "/Cargo.lock",
      path ? ".",
      features ? [ ],
      packages ? [ ],
      suite ? null,
    }:
    let
      isTexts = value: isList value && all isString value;
      content = fromTOML (readFile lock);
      named = content.package or [ ];
      crates = filter (package: package ? source) named;
      foreign = filter (package: match "(registry|sparse)[+].*" package.source == null || !(package ? checksum)) crates;
    in
    if !isPath source then
      wrong arguments "source" "forge.rust: `source` is the path of a directory with a Cargo.toml, for instance ./."
    else if !isPath lock then
      wrong arguments "lock" "forge.rust: `lock` is the path of a Cargo.lock"
    else if !isString path then
      wrong arguments "path" "forge.rust: `path` is that of the program's Cargo.toml's directory below the source, for instance \"cli\""
    else if !isTexts features then
      wrong arguments "features" "forge.rust: `features` is a list of strings"
    else if !isTexts packages then
      wrong arguments "packages" "forge.rust: `packages` is a list of Debian packages that building needs, for instance [ \"libssl-dev\" \"pkg-config\" ]"
    else if foreign != [ ] then
      fail arguments "lock" "forge.rust: crate `${(head foreign).name}` is of no registry with checksums (${(head foreign).source}): vendor it into the source"
    else
      layer "rust" {
        inherit
          arguments
          crates
          features
          lock
          packages
          path
          suite
          ;
        directory = source;
      };

  crate =
    package:
    step "cargo-crate" "${package.name}-${package.version}" {
      sha256 = package.checksum;
      inherit (package) name version;
      crate = download {
        name = "${package.name}-${package.version}.crate";
        url = "cargo:${package.name}/${package.version}";
        sha256 = package.checksum;
      };
    };

  # The layers: what was built, and the record of what it was built from.
  layers =
    name: formationSuite: realiseLayers: description:
    let
      inherit (description) arguments;
      suite =
        if description.suite != null then
          description.suite
        else if formationSuite != null then
          formationSuite
        else
          "trixie";
      unpacked = map crate description.crates;
      vendor = {
        _type = "layer";
        kind = "derivation";
        drv = step "cargo-vendor" "cargo-vendor" { crates = unpacked; };
      };
      words = [
        "cargo"
        "install"
        "--path"
        description.path
        "--root"
        "/usr/local"
        "--locked"
        "--offline"
        "--no-track"
        "--target-dir"
        "/build/target"
      ]
      ++ (
        if description.features == [ ] then
          [ ]
        else
          [
            "--features"
            (concatStringsSep "," description.features)
          ]
      );
      quoted = map (word: "'${replaceStrings [ "'" ] [ "'\\''" ] word}'") words;
      built = run {
        name = "cargo-install";
        layers = [
          (debian {
            inherit suite;
            packages = [
              "cargo"
              "gcc"
              "libc6-dev"
              "rustc"
            ]
            ++ description.packages;
          })
          vendor
          (files {
            "/build/source" = source description.directory;
            "/build/Cargo.lock" = description.lock;
          })
        ];
        environment = {
          CARGO_HOME = "/build/cargo";
          CARGO_INCREMENTAL = "0";
        };
        directory = "/build/source";
        # Version 4 writes addresses of git otherwise, and says so; older cargos read everything else.
        script = ''
          sed 's/^version = 4$/version = 3/' /build/Cargo.lock > Cargo.lock
          ${concatStringsSep " " quoted}
        '';
        keep = [ "/usr/local/bin" ];
      };
      record = {
        label = "rust packages";
        drv = step "cargo-record" "cargo-record" {
          crates = unpacked;
          path = "/usr/local/share/forge/packages/rust-${name}.json";
        };
      };
    in
    map (made: made // { label = "rust ${baseName (toString description.path)}"; }) (realiseLayers "rust" [ built ])
    ++ [ record ];
in
{
  inherit layers rust;
}
