# Rust: programs built from their `Cargo.lock`, without network.
{
  baseName,
  checked,
  debian,
  download,
  files,
  holds,
  is,
  layer,
  run,
  source,
  step,
  ...
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
    checked "forge.rust" arguments [
      (is.path "a directory with a Cargo.toml" "source" source "./.")
      (is.path "a Cargo.lock" "lock" lock null)
      (is.such "that of the program's Cargo.toml's directory below the source" (isString path) "path" path "\"cli\"")
      (is.texts "features" features null)
      (is.such "a list of Debian packages that building needs" (isTexts packages) "packages" packages "[ \"libssl-dev\" \"pkg-config\" ]")
      (holds (foreign == [ ]) "lock"
        "crate `${(head foreign).name}` is of no registry with checksums (${(head foreign).source}): vendor it into the source"
      )
    ] (layer "rust" {
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
    });

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
          rm -r /build/target
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
