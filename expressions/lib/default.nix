# The library `forge`, as runtime expressions see it.
#
# A layer is described first (`_type = "layer"`) and becomes derivations only when a formation puts it on top of others: so
# that package lists of one ecosystem are solved together, and a layer can know what lies below it.
{
  # kind: parameters: the lock's records; [ ] while the lock does not answer (the plan is then thrown away).
  lock,
  # For instance "x86_64-linux".
  system,
  # The library's file of a name.
  part,
  # A path: its address as the lock has it, relative to the project.
  relative,
  # set: name: message: fails where the user wrote the attribute.
  fail,
  # The same, and says what the attribute is instead.
  wrong,
  # set: name: value: the value; what fails in it is shown at the attribute, unless it has a place of the user's own.
  within,
  ...
}:
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    head
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isPath
    isString
    length
    map
    mapAttrs
    match
    replaceStrings
    sort
    toJSON
    toString
    typeOf
    ;

  platforms = {
    x86_64-linux = "amd64";
    aarch64-linux = "arm64";
  };
  architecture = platforms.${system} or (throw "forge builds for ${concatStringsSep " and " (attrNames platforms)}, not for ${system}");

  # What each Debian suite's interpreter and libc are: a lock must not depend on a tree that is still to be built.
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
  };

  unique = list: foldl' (seen: item: if elem item seen then seen else seen ++ [ item ]) [ ] list;
  sorted = list: sort (a: b: a < b) (unique list);
  notNull = set: removeAttrs set (filter (name: set.${name} == null) (attrNames set));

  # A Nix store path name: Debian's versions have `:` and `~`, which Nix does not allow.
  storeName = replaceStrings [ "~" ":" "%" "!" "@" " " "/" ] [ "_" "_" "_" "_" "_" "_" "_" ];

  step =
    kind: name: parameters:
    derivation {
      inherit system;
      name = storeName name;
      builder = "builtin:${kind}";
      parameters = toJSON parameters;
    };

  download =
    {
      name,
      url,
      sha256,
      size ? null,
    }:
    derivation {
      inherit system;
      name = storeName name;
      builder = "builtin:fetch";
      parameters = toJSON (notNull { inherit url size; });
      outputHash = sha256;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
    };

  # The last component of a path or address, without a query.
  baseName = path: elemAt (match "(.*/)?([^/?#]*)([?#].*)?" path) 1;

  isLayer = value: isAttrs value && value._type or null == "layer";
  layer = kind: fields: fields // { _type = "layer"; inherit kind; };

  # A file known by the text that npm and others know it by: "sha512-…" in base 64. `source`: `url`, and where else it may be.
  downloadIntegrity =
    {
      name,
      source,
      integrity,
    }:
    derivation {
      inherit system;
      name = storeName name;
      builder = "builtin:fetch";
      parameters = toJSON (notNull source);
      outputHash = integrity;
      outputHashMode = "flat";
    };

  inherit (part "units" { inherit fail wrong; }) parseBytes parseDuration parseLimits;

  # A directory of the project without what its `.gitignore` leaves out.
  source =
    path:
    if isPath path then
      part "source" path
    else
      throw "forge.source: takes the path of a directory, for instance ./., not a ${typeOf path}";

  rustPart = part "rust" {
    inherit
      baseName
      debian
      download
      fail
      files
      layer
      run
      source
      step
      wrong
      ;
  };

  nodePart = part "node" {
    inherit
      architecture
      baseName
      downloadIntegrity
      fail
      layer
      step
      wrong
      ;
  };

  ociPart = part "oci" {
    inherit
      architecture
      baseName
      download
      fail
      layer
      lock
      step
      wrong
      ;
  };

  # ---- what users call ----------------------------------------------------------------------------------------------

  # Packages of Debian with all that they depend on, configured. Several of one suite are solved together.
  debian =
    arguments@{
      packages ? [ ],
      suite ? "bookworm",
      recommends ? false,
      components ? [ "main" ],
      repositories ? [ ],
    }:
    let
      isRepository =
        value: isAttrs value && all (name: isString (value.${name} or null)) [ "url" "suite" ] && isPath (value.key or null);
    in
    if !(isList packages && all isString packages) then
      wrong arguments "packages" "forge.debian: `packages` is a list of strings, for instance [ \"python3\" \"git\" ]"
    else if !isString suite then
      wrong arguments "suite" "forge.debian: `suite` is a string, for instance \"bookworm\""
    else if !isBool recommends then
      wrong arguments "recommends" "forge.debian: `recommends` is true or false"
    else if !(isList components && all isString components) then
      wrong arguments "components" "forge.debian: `components` is a list of strings, for instance [ \"main\" \"contrib\" ]"
    else if !(isList repositories && all isRepository repositories) then
      wrong arguments "repositories" "forge.debian: `repositories` is a list of sets { url; suite; components; key; }, with the path of an armoured key"
    else
      layer "debian" {
        inherit
          arguments
          packages
          suite
          recommends
          components
          repositories
          ;
      };

  # Projects of the Python package index. `requirements` as pip takes them; or `lock`: a uv.lock, pylock.toml, requirements.txt with
  # hashes, or pyproject.toml.
  python =
    arguments@{
      requirements ? [ ],
      lock ? null,
      extras ? [ ],
      groups ? [ ],
      python ? null,
    }:
    let
      isTexts = value: isList value && all isString value;
    in
    if !isTexts requirements then
      wrong arguments "requirements" "forge.python: `requirements` is a list of strings, for instance [ \"numpy\" \"pandas>=2\" ]"
    else if !(python == null || isString python) then
      wrong arguments "python" "forge.python: `python` is a string, for instance \"3.11\""
    else if !(lock == null || isPath lock) then
      wrong arguments "lock" "forge.python: `lock` is the path of a lock file, for instance ./uv.lock"
    else if !isTexts extras then
      wrong arguments "extras" "forge.python: `extras` is a list of strings"
    else if !isTexts groups then
      wrong arguments "groups" "forge.python: `groups` is a list of strings, for instance [ \"dev\" ]"
    else if lock != null && requirements != [ ] then
      fail arguments "requirements" "forge.python: give either `requirements` or `lock`"
    else if lock == null && (arguments ? extras || arguments ? groups || !(arguments ? requirements)) then
      fail arguments (if arguments ? extras then "extras" else "groups") "forge.python: `requirements` is missing, or a `lock` that has them"
    else
      layer "python" {
        inherit
          arguments
          requirements
          lock
          extras
          groups
          python
          ;
      };

  # OpenJDK of Debian, and jars by name: paths, or downloads (forge.fetchurl).
  java =
    arguments@{
      version ? "17",
      jdk ? false,
      jars ? { },
      directory ? "/app/lib",
    }:
    if !isString version then
      wrong arguments "version" "forge.java: `version` is a string, for instance \"17\""
    else if !isBool jdk then
      wrong arguments "jdk" "forge.java: `jdk` is true or false"
    else if !isAttrs jars then
      wrong arguments "jars" "forge.java: `jars` is an attribute set, for instance { \"app.jar\" = ./app.jar; }"
    else if !(isString directory && match "/.*" directory != null) then
      wrong arguments "directory" "forge.java: `directory` is an absolute path"
    else
      layer "java" {
        inherit
          arguments
          version
          jars
          directory
          ;
        flavour = if jdk then "jdk-headless" else "jre-headless";
      };

  # Files and directories of the project (paths), downloads (derivations) and texts (strings), by where they go.
  files =
    contents:
    if isAttrs contents then
      layer "files" { inherit contents; }
    else
      throw "forge.files: takes an attribute set, for instance { \"/app\" = ./app; }, not a ${typeOf contents}";

  # A command over given layers (those below it, if none are given); what it changes is the layer.
  run =
    arguments@{
      command ? null,
      script ? null,
      name ? "run",
      layers ? null,
      environment ? { },
      directory ? "/",
      timeout ? null,
      keep ? null,
    }:
    if (command == null) == (script == null) then
      fail arguments "script" "forge.run: give either `command` (a list of strings) or `script` (a text for /bin/sh)"
    else if command != null && !(isList command && all isString command) then
      wrong arguments "command" "forge.run: `command` is a list of strings, for instance [ \"make\" \"install\" ]"
    else if script != null && !isString script then
      wrong arguments "script" "forge.run: `script` is a text for /bin/sh"
    else if !isString name then
      wrong arguments "name" "forge.run: `name` is a string"
    else if !isAttrs environment then
      wrong arguments "environment" "forge.run: `environment` is an attribute set, for instance { LANG = \"C\"; }"
    else if !isString directory then
      wrong arguments "directory" "forge.run: `directory` is a string, for instance \"/app\""
    else if !(layers == null || isList layers) then
      wrong arguments "layers" "forge.run: `layers` is a list of layers"
    else if !(keep == null || isList keep && all isString keep) then
      wrong arguments "keep" "forge.run: `keep` is a list of paths, for instance [ \"/usr/local/bin\" ]"
    else if timeout != null && parseDuration timeout == null then
      wrong arguments "timeout" "forge.run: `timeout` is a time such as \"90s\" or \"20m\""
    else
      layer "run" {
        inherit
          arguments
          name
          layers
          environment
          directory
          timeout
          keep
          ;
        command = if command != null then command else [ "/bin/sh" "-euc" script ];
      };

  # What Nix derivations give, with everything that it refers to: /nix/store as it has to be for them to run.
  closure =
    value:
    let
      drvs = if isList value then value else [ value ];
      isDerivation = item: isAttrs item && item.type or null == "derivation";
    in
    if drvs != [ ] && all isDerivation drvs then
      layer "derivation" {
        drv = step "closure" "closure-${(head drvs).name}" { paths = drvs; };
      }
    else
      throw "forge.closure: takes a derivation or a list of derivations";

  # A file of the network. Without `sha256` the lock keeps what it was when it was first fetched.
  fetchurl =
    arguments@{
      url,
      sha256 ? null,
      name ? baseName url,
    }:
    let
      record = head (lock "url" { inherit url; });
    in
    if !isString url then
      wrong arguments "url" "forge.fetchurl: `url` is a string"
    else if !(sha256 == null || isString sha256) then
      wrong arguments "sha256" "forge.fetchurl: `sha256` is a string"
    else if sha256 != null then
      download { inherit name url sha256; }
    else
      download {
        inherit name url;
        inherit (record) sha256 size;
      };

  # The package index of a Debian suite (a file `Packages.xz`), as it was when it was locked.
  debianIndex =
    {
      suite ? "bookworm",
      component ? "main",
    }:
    let
      record = head (lock "debian-index" { inherit suite component architecture; });
    in
    download {
      name = "Packages.xz";
      url = "debian:${record.suite}/${record.file}";
      inherit (record) sha256 size;
    };

  formation =
    specification@{
      name,
      layers,
      version ? "",
      variant ? "",
      description ? "",
      test ? [ ],
      environment ? { },
      entrypoint ? [ ],
      command ? [ ],
      directory ? null,
      user ? null,
      limits ? { },
      ports ? [ ],
      network ? false,
      stopSignal ? null,
      capabilities ? [ ],
      labels ? { },
      preInstall ? null,
      postInstall ? null,
    }:
    let
      words =
        setting: value:
        if isList value && all isString value then
          value
        else
          wrong specification setting "formation ${name}: `${setting}` is a list of strings, for instance [ \"python3\" \"/app/main.py\" ]";
      described =
        if isString description then
          description
        else
          wrong specification "description" "formation ${name}: `description` is a string";
    in
    {
      _type = "formation";
      inherit name version variant specification;
      platform = "linux/${architecture}";
      layers =
        if !isList layers then
          wrong specification "layers" "formation ${name}: `layers` is a list"
        else if builtins.any isFunction layers then
          fail specification "layers" "formation ${name}: a function is no layer; in a list a call stands in parentheses: [ (forge.debian { … }) ]"
        else
          realiseLayers name (withHooks specification);
      launch = {
        inherit directory user network stopSignal;
        entrypoint = words "entrypoint" entrypoint;
        command = words "command" command;
        capabilities =
          if isList capabilities && all isString capabilities then
            capabilities
          else
            wrong specification "capabilities" "formation ${name}: `capabilities` is a list of names, for instance [ \"NET_RAW\" ]";
        labels =
          (if description == "" then { } else { "org.opencontainers.image.description" = described; })
          // (if words "test" test == [ ] then { } else { "forge.test" = toJSON test; })
          // mapAttrs (name: value: within labels name (toString value)) labels;
        ports =
          if isList ports && all (port: isInt port || isString port) ports then
            map toString ports
          else
            wrong specification "ports" "formation ${name}: `ports` is a list of numbers and texts, for instance [ 8080 \"53/udp\" ]";
        environment =
          if isAttrs environment then
            defaultEnvironment // mapAttrs (name: value: within environment name (toString value)) environment
          else
            wrong specification "environment" "formation ${name}: `environment` is an attribute set, for instance { LANG = \"C\"; }";
        limits =
          if isAttrs limits then
            parseLimits limits
          else
            wrong specification "limits" "formation ${name}: `limits` is an attribute set, for instance { memory = \"1G\"; }";
      };
    };

  # The layers with the formation's hooks: `preInstall` over the lowest layer, before the others; `postInstall` over all of them.
  withHooks =
    specification:
    let
      layers = flatten specification specification.layers;
      hook =
        setting:
        let
          value = specification.${setting} or null;
        in
        if value == null then
          [ ]
        else if isString value || isAttrs value && isString (value.script or null) then
          [
            (run (
              {
                name = setting;
                timeout = "10m";
              }
              // (if isString value then { script = value; } else value)
            ))
          ]
        else
          wrong specification setting "formation ${specification.name}: `${setting}` is a script, or { script; timeout; }";
    in
    (if layers == [ ] then [ ] else [ (head layers) ])
    ++ hook "preInstall"
    ++ (if layers == [ ] then [ ] else builtins.tail layers)
    ++ hook "postInstall";

  # A formation with more layers and other settings: environment, labels and limits are joined, the rest is replaced.
  extend =
    base: changes:
    let
      old = base.specification or (throw "forge.extend: the first argument is a formation");
    in
    formation (
      removeAttrs old [
        "preInstall"
        "postInstall"
      ]
      // changes
      // {
        # The hooks of what is extended stay where they are: below what is put on top.
        layers = withHooks old ++ flatten changes (changes.layers or [ ]);
        environment = (old.environment or { }) // (changes.environment or { });
        labels = (old.labels or { }) // (changes.labels or { });
        limits = (old.limits or { }) // (changes.limits or { });
      }
    );

  defaultEnvironment = {
    PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    HOME = "/root";
    LANG = "C.UTF-8";
  };

  # ---- from descriptions to derivations ------------------------------------------------------------------------------

  # `arguments` are what the layers were written in.
  flatten =
    arguments: layers:
    if !isList layers then
      wrong arguments "layers" "layers are a list"
    else
      concatLists (map (item: if isList item then flatten arguments item else [ (checkLayer arguments item) ]) layers);

  checkLayer =
    arguments: value:
    if isLayer value then
      value
    else if isAttrs value && value.type or null == "derivation" then
      layer "derivation" { drv = value; }
    else
      fail arguments "layers" "a layer is what forge.debian, forge.python, forge.node, forge.oci, forge.files or forge.run gives, not a ${typeOf value}";

  realiseLayers =
    name: descriptions:
    let
      ofKind = kind: filter (item: item.kind == kind) descriptions;
      debians = ofKind "debian";
      pythons = ofKind "python";
      nodes = ofKind "node";
      javas = ofKind "java";
      debianSuites = unique (map (item: item.suite) debians);
      suite =
        if length debianSuites > 1 then
          fail (elemAt debians 1).arguments "suite" "formation ${name}: one Debian suite at a time, not ${concatStringsSep " and " debianSuites}"
        else
          head debianSuites;
      pythonLocks = filter (item: item.lock != null) pythons;
      pythonWishes = unique (filter (wish: wish != null) (map (item: item.python) pythons));
      known =
        if debians == [ ] then
          fail (head pythons).arguments "requirements" "formation ${name}: forge.python needs an interpreter: add (forge.debian { packages = [ \"python3\" ]; }) to the layers"
        else
          suites.${suite}
            or (fail (head debians).arguments "suite" "formation ${name}: which Python and glibc Debian ${suite} has is not known here");
      pythonVersion =
        if pythonWishes == [ ] then
          known.python
        else if length pythonWishes == 1 then
          head pythonWishes
        else
          throw "formation ${name}: one Python at a time, not ${concatStringsSep " and " pythonWishes}";
      debianPackages =
        concatLists (map (item: item.packages) debians)
        ++ (
          if pythons == [ ] then
            [ ]
          else
            [
              (if pythonWishes == [ ] then "python3" else "python${pythonVersion}")
              # manylinux wheels may expect the system to have it (PEP 600).
              "libstdc++6"
            ]
        )
        ++ (if nodes == [ ] then [ ] else [ "nodejs" ])
        ++ map (item: "openjdk-${item.version}-${item.flavour}") javas;

      merged = {
        debian = debianLayer {
          inherit suite;
          packages = sorted debianPackages;
          recommends = builtins.any (item: item.recommends) debians;
          components = sorted (concatLists (map (item: item.components) debians));
          repositories = unique (concatLists (map (item: item.repositories) debians));
        };
        python =
          below:
          pythonLayer below {
            requirements = sorted (concatLists (map (item: item.requirements) pythons));
            file =
              if pythonLocks == [ ] then
                null
              else if length pythons > 1 then
                fail (head pythonLocks).arguments "lock" "formation ${name}: a lock file says everything itself: no other forge.python beside it"
              else
                head pythonLocks;
            python = pythonVersion;
            inherit (known) glibc;
          };
      };

      # Debian's and Python's layers stand where the first of them stands.
      place =
        state: description:
        let
          inherit (description) kind;
          once = kind == "debian" || kind == "python";
          made =
            if kind == "debian" then
              merged.debian
            else if kind == "python" then
              merged.python state.below
            else if kind == "files" then
              filesLayer description
            else if kind == "run" then
              runLayer state.below description
            else if kind == "oci" then
              ociPart.layers state.below description
            else if kind == "node" then
              if debians == [ ] then
                fail description.arguments "lock" "formation ${name}: forge.node needs Node: add (forge.debian { packages = [ ]; }) to the layers"
              else
                nodePart.layers state.below description
            else if kind == "rust" then
              rustPart.layers name (if debians == [ ] then null else suite) realiseLayers description
            else if kind == "java" then
              if debians == [ ] then
                fail description.arguments "version" "formation ${name}: forge.java needs a root: add (forge.debian { packages = [ ]; }) to the layers"
              else
                javaLayers description
            else
              {
                label = description.drv.name;
                inherit (description) drv;
              };
          # Some kinds give several layers, one on top of the other.
          layersMade = if isList made then made else [ made ];
        in
        if once && elem kind state.seen then
          state
        else
          {
            seen = state.seen ++ [ kind ];
            layers = state.layers ++ layersMade;
            below = state.below ++ map (item: item.drv) layersMade;
          };
    in
    (foldl' place {
      seen = [ ];
      layers = [ ];
      below = [ ];
    } descriptions).layers;

  debianLayer =
    {
      suite,
      packages,
      recommends,
      components,
      repositories,
    }:
    let
      # A repository as apt has it behind `deb`.
      line = item: concatStringsSep " " ([ item.url item.suite ] ++ item.components or [ "main" ]);
      records = lock "debian" (
        { inherit suite packages architecture; }
        // (if recommends then { inherit recommends; } else { })
        // (if components == [ "main" ] then { } else { inherit components; })
        // (
          if repositories == [ ] then
            { }
          else
            {
              repositories = map line repositories;
              keys = map (item: builtins.readFile item.key) repositories;
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
    in
    {
      label = "debian ${suite}";
      drv = step "debian-configure" "debian-${suite}" {
        packages = map package records;
        inherit suite architecture;
      };
    };

  pythonLayer =
    below:
    {
      requirements,
      file,
      python,
      glibc,
    }:
    let
      target = {
        inherit python glibc;
        platform = "linux/${architecture}";
      };
      records =
        if file == null then
          lock "python" (target // { inherit requirements; })
        else
          lock "python-lock" (
            target
            // {
              url = relative file.lock;
              sha256 = builtins.hashFile "sha256" file.lock;
            }
            // (if file.extras == [ ] then { } else { extras = sorted file.extras; })
            // (if file.groups == [ ] then { } else { groups = sorted file.groups; })
          );
      fetched =
        record:
        download {
          name = record.file;
          url = "python:${record.name}/${record.file}";
          inherit (record) sha256;
          size = record.size or null;
        };
      wheel =
        record:
        step "wheel" "${record.name}-${record.version}" {
          inherit (record) file;
          inherit python;
          wheel = fetched record;
        };
      # Built from its source, with what building needs.
      built =
        record:
        step "python-source" "${record.name}-${record.version}" {
          inherit (record) file;
          inherit python;
          layers = below;
          source = fetched record;
          wheels = map wheel (filter (other: other.for or null == record.name) records);
        };
      isWheel = record: match ".*[.]whl" record.file != null;
      installed = filter (record: !(record ? for)) records;
    in
    {
      label = "python ${python}";
      drv = step "python-environment" "python-${python}" {
        layers = below;
        wheels = map (record: if isWheel record then wheel record else built record) installed;
        inherit python;
      };
    };

  # The jars, and a record of them.
  javaLayers =
    { directory, jars, ... }:
    if jars == { } then
      [ ]
    else
      [
        (
          filesLayer (files (builtins.listToAttrs (map (name: {
            name = "${directory}/${name}";
            value = jars.${name};
          }) (attrNames jars))))
          // {
            label = "java ${directory}";
          }
        )
      ];

  filesLayer =
    { contents, ... }:
    let
      source =
        target: value:
        if isPath value then
          # A fixed name: where the project lies must not show.
          builtins.path {
            path = value;
            name = "source";
          }
        else if isString value && builtins.hasContext value || isAttrs value then
          "${value}"
        else if isString value then
          builtins.toFile "text" value
        else
          fail contents target "forge.files: ${target} is a path, a text or a derivation, not a ${typeOf value}";
    in
    {
      label = "files ${concatStringsSep " " (attrNames contents)}";
      drv = step "files" "files" {
        files = mapAttrs (target: value: within contents target (source target value)) contents;
      };
    };

  runLayer =
    below:
    {
      name,
      command,
      layers,
      environment,
      directory,
      timeout,
      keep,
      arguments,
      ...
    }:
    let
      given = realiseLayers name (flatten arguments layers);
      # Of a step that builds only what it was for goes on.
      kept =
        drv:
        if keep == null then
          drv
        else
          step "keep" name {
            layer = drv;
            paths = keep;
          };
    in
    {
      label = "run ${name}";
      drv = kept (step "run" name (
        {
          inherit command directory;
          environment = mapAttrs (name: value: within environment name (toString value)) environment;
          layers = if layers == null then below else map (item: item.drv) given;
        }
        // (if timeout == null then { } else { timeout = parseDuration timeout; })
      ));
    };

in
{
  inherit
    closure
    debian
    debianIndex
    extend
    fetchurl
    files
    formation
    java
    python
    run
    source
    ;
  inherit (nodePart) node;
  inherit (ociPart) oci;
  inherit (rustPart) rust;
  runtimes = part "runtimes" {
    inherit
      architecture
      debian
      formation
      python
      ;
  };
}
