# Debian: packages with all that they depend on, and a suite's index of them.
{
  architecture,
  baseName,
  checked,
  download,
  is,
  layer,
  lock,
  originOf,
  step,
  ...
}:
let
  inherit (builtins)
    all
    concatStringsSep
    filter
    head
    isAttrs
    isList
    isPath
    isString
    map
    readFile
    ;

  # What each suite's interpreter and libc are: a lock must not depend on a tree that is still to be built.
  suites = {
    buster = {
      python = "3.7";
      glibc = "2.28";
    };
    bullseye = {
      python = "3.9";
      glibc = "2.31";
    };
    bookworm = {
      python = "3.11";
      glibc = "2.36";
    };
    trixie = {
      python = "3.13";
      glibc = "2.41";
    };
    focal = {
      python = "3.8";
      glibc = "2.31";
    };
    jammy = {
      python = "3.10";
      glibc = "2.35";
    };
    noble = {
      python = "3.12";
      glibc = "2.39";
    };
  };

  # Packages, configured. Several of one suite are solved together.
  debian =
    arguments@{
      packages ? [ ],
      suite ? "bookworm",
      essential ? true,
      recommends ? false,
      components ? [ "main" ],
      snapshot ? null,
      repositories ? [ ],
    }:
    let
      isTime = isString snapshot && builtins.match "[0-9]{8}(T[0-9]{6}Z)?" snapshot != null;
      isRepository =
        value: isAttrs value && all (name: isString (value.${name} or null)) [ "url" "suite" ] && isPath (value.key or null);
      ofRepositories = is.such "a list of sets { url; suite; components; key; }, with the path of an armoured key" (
        isList repositories && all isRepository repositories
      );
    in
    checked "forge.debian" arguments [
      (is.texts "packages" packages "[ \"python3\" \"git\" ]")
      (is.text "suite" suite "\"bookworm\"")
      (is.bool "essential" essential null)
      (is.bool "recommends" recommends null)
      (is.texts "components" components "[ \"main\" \"contrib\" ]")
      (is.such "the time of a snapshot of the archive" (snapshot == null || isTime) "snapshot" snapshot
        "\"20260801T000000Z\""
      )
      (ofRepositories "repositories" repositories null)
    ] (layer "debian" {
      inherit
        arguments
        packages
        suite
        essential
        recommends
        components
        snapshot
        repositories
        ;
    });

  # The package index of a suite (a file `Packages.xz`), as it was when it was locked.
  debianIndex =
    arguments@{
      suite ? "bookworm",
      component ? "main",
    }:
    let
      origins = map (originOf arguments) [
        "suite"
        "component"
      ];
      record = head (lock origins "debian-index" { inherit suite component architecture; });
    in
    download {
      name = "Packages.xz";
      url = "debian:${record.suite}/${record.file}";
      inherit (record) sha256 size;
    };

  # `target`: whose packages.
  debianLayer =
    target:
    {
      suite,
      packages,
      essential,
      recommends,
      components,
      snapshot,
      repositories,
      origins,
    }:
    let
      # A repository as apt has it behind `deb`.
      line = item: concatStringsSep " " ([ item.url item.suite ] ++ item.components or [ "main" ]);
      records = lock origins "debian" (
        {
          inherit suite packages;
          architecture = target;
        }
        // (if essential then { } else { inherit essential; })
        // (if recommends then { inherit recommends; } else { })
        // (if components == [ "main" ] then { } else { inherit components; })
        // (if snapshot == null then { } else { inherit snapshot; })
        // (
          if repositories == [ ] then
            { }
          else
            {
              repositories = map line repositories;
              keys = map (item: readFile item.key) repositories;
            }
        )
      );
      package =
        record:
        step "debian-package" "${record.name}-${record.version}" {
          package = download {
            name = baseName record.file;
            url = if record ? repository then "${record.repository}/${record.file}" else "debian:${record.suite}/${record.file}";
            inherit (record) sha256 size;
          };
        };
      configured =
        name: below: records:
        step "debian-configure" name {
          packages = map package records;
          inherit suite below;
          architecture = target;
        };
      # What every root has is configured once, while the rest is being unpacked. A lock that was written before this was known does
      # not say what that is, a root without all of it need not be one by itself, and nothing of another architecture can be configured.
      essentials = filter (record: record.essential or false == true) records;
      isShared = target == architecture && essential && essentials != [ ] && essentials != records;
    in
    {
      label = "debian ${suite}";
      drv = configured "debian-${suite}" (
        if isShared then configured "debian-${suite}-essential" null essentials else null
      ) records;
    };
in
{
  inherit
    debian
    debianIndex
    debianLayer
    suites
    ;
}
