# The library `forge`, as runtime expressions see it: what its files give, joined; and how layers become derivations.
#
# A layer is described first (`_type = "layer"`) and becomes derivations only when a formation puts it on top of others: so
# that package lists of one ecosystem are solved together, and a layer can know what lies below it.
primitives@{
  # origins: kind: parameters: the lock's records; [ ] while the lock does not answer (the plan is then thrown away). An origin is
  # `{ set; name; }`, an attribute that the user wrote: there a failure to answer is shown.
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
  # set: name: message: wanted: known: fails as `fail` does, and says which of the known names are like the wanted one.
  unknown,
  # set: name: value: the value; what fails in it is shown at the attribute, unless it has a place of the user's own.
  within,
  ...
}:
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    head
    isAttrs
    isList
    isPath
    length
    map
    typeOf
    ;

  platforms = {
    x86_64-linux = "amd64";
    aarch64-linux = "arm64";
  };
  architecture = platforms.${system} or (throw "forge builds for ${concatStringsSep " and " (attrNames platforms)}, not for ${system}");

  # What every file of the library may use.
  shared =
    removeAttrs primitives [ "architecture" ]
    // part "basics" { inherit system; }
    // part "arguments" { inherit fail wrong; }
    // part "units" { inherit fail wrong; }
    // {
      inherit architecture;
    };

  inherit (shared)
    layer
    originOf
    sorted
    step
    unique
    ;

  debianPart = part "debian" shared;
  filesPart = part "files" shared;
  pythonPart = part "python" shared;
  imagePart = part "image" shared;
  runPart = part "run" shared;
  nodePart = part "node" shared;
  ociPart = part "oci" shared;
  rustPart = part "rust" (
    shared
    // {
      inherit source;
      inherit (debianPart) debian;
      inherit (filesPart) files;
      inherit (runPart) run;
    }
  );
  formationPart = part "formation" (
    shared
    // {
      inherit realiseFor;
      inherit (runPart) withHooks;
    }
  );

  # A directory of the project without what its `.gitignore` leaves out.
  source =
    path:
    if isPath path then
      part "source" path
    else
      throw "forge.source: takes the path of a directory, for instance ./., not a ${typeOf path}";

  # What Nix derivations give, with everything that it refers to: /nix/store as it has to be for them to run.
  closure =
    value:
    let
      drvs = if isList value then value else [ value ];
      isDerivation = item: isAttrs item && item.type or null == "derivation";
    in
    if drvs != [ ] && all isDerivation drvs then
      layer "derivation" { drv = step "closure" "closure-${(head drvs).name}" { paths = drvs; }; }
    else
      throw "forge.closure: takes a derivation or a list of derivations";

  # ---- from descriptions to derivations ------------------------------------------------------------------------------

  # The layers of a formation, or of a step of that name, lowest first: { label; drv; } each.
  realiseLayers = realiseFor architecture;

  # The same for a kind of processor.
  realiseFor =
    target: name: descriptions:
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
      debianTimes = unique (filter (time: time != null) (map (item: item.snapshot) debians));
      snapshot =
        if debianTimes == [ ] then
          null
        else if length debianTimes == 1 then
          head debianTimes
        else
          fail (elemAt debians 1).arguments "snapshot" "formation ${name}: one snapshot of Debian at a time, not ${concatStringsSep " and " debianTimes}";
      # What needs a root of Debian below it says so.
      onDebian =
        description: attribute: what: value:
        if debians == [ ] then
          fail description.arguments attribute "formation ${name}: ${what}: add (forge.debian { packages = [ ]; }) to the layers"
        else
          value;
      # What runs a program of the formation while it is made.
      native =
        description: attribute: value:
        if target == architecture then
          value
        else
          fail description.arguments attribute "formation ${name}: this runs programs of linux/${target}, which this machine (linux/${architecture}) cannot";
      # Where the user wrote what the lock is asked.
      origins = layers: concatMap (name: map (item: originOf item.arguments name) layers);
      pythonLocks = filter (item: item.lock != null) pythons;
      # What all layers of Python must agree in, where they say it.
      ofPythons =
        attribute: what: default:
        let
          wishing = filter (item: item.${attribute} != null) pythons;
          wish = (head wishing).${attribute};
          others = filter (item: item.${attribute} != wish) wishing;
          other = head others;
        in
        if wishing == [ ] then
          default
        else if others == [ ] then
          wish
        else
          fail other.arguments attribute "formation ${name}: ${what} at a time, not ${wish} and ${other.${attribute}}";
      known =
        if debians == [ ] then
          fail (head pythons).arguments "requirements" "formation ${name}: forge.python needs an interpreter: add (forge.debian { packages = [ \"python3\" ]; }) to the layers"
        else
          debianPart.suites.${suite}
            or (fail (head debians).arguments "suite" "formation ${name}: which Python and glibc Debian ${suite} has is not known here");
      pythonVersion = ofPythons "python" "one Python" known.python;
      ofPython = [
        (if any (item: item.python != null) pythons then "python${pythonVersion}" else "python3")
        # manylinux wheels may expect the system to have it (PEP 600).
        "libstdc++6"
      ];
      debianPackages =
        concatLists (map (item: item.packages) debians)
        ++ (if pythons == [ ] then [ ] else ofPython)
        ++ (if nodes == [ ] then [ ] else [ "nodejs" ])
        ++ map (item: "openjdk-${item.version}-${item.flavour}") javas;

      # By kind: what one description of it becomes, a layer or a list of them.
      make = {
        debian =
          _: _:
          debianPart.debianLayer target {
            inherit suite snapshot;
            essential = any (item: item.essential) debians;
            packages = sorted debianPackages;
            recommends = any (item: item.recommends) debians;
            components = sorted (concatLists (map (item: item.components) debians));
            repositories = unique (concatLists (map (item: item.repositories) debians));
            origins = origins debians [
              "packages"
              "suite"
              "snapshot"
              "components"
              "repositories"
            ];
          };
        python =
          below: description:
          native description "requirements" (pythonPart.pythonLayer below {
            requirements = sorted (concatLists (map (item: item.requirements) pythons));
            file =
              if pythonLocks == [ ] then
                null
              else if length pythons > 1 then
                fail (head pythonLocks).arguments "lock" "formation ${name}: a lock file says everything itself: no other forge.python beside it"
              else
                head pythonLocks;
            python = pythonVersion;
            origins = origins pythons [
              "requirements"
              "lock"
              "extras"
              "groups"
            ];
            bytecode = ofPythons "bytecode" "one kind of bytecode" "modules";
            inherit (known) glibc;
          });
        files = _: filesPart.filesLayer;
        run =
          below: description:
          let
            inherit (description) arguments layers;
            given = map (item: item.drv) (realiseLayers description.name (formationPart.flatten arguments layers));
          in
          native description "script" (runPart.runLayer (if layers == null then below else given) description);
        oci = ociPart.layers;
        node =
          below: description:
          native description "lock" (onDebian description "lock" "forge.node needs Node" (nodePart.layers below description));
        rust =
          _: description:
          native description "source" (rustPart.layers name (if debians == [ ] then null else suite) realiseLayers description);
        java = _: description: onDebian description "version" "forge.java needs a root" (filesPart.javaLayers description);
        derivation = _: description: {
          label = description.drv.name;
          inherit (description) drv;
        };
      };

      # Debian's and Python's layers stand where the first of them stands.
      place =
        state: description:
        let
          inherit (description) kind;
          once = kind == "debian" || kind == "python";
          made = make.${kind} state.below description;
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
in
{
  inherit closure source;
  inherit (debianPart) debian debianIndex;
  inherit (filesPart) fetchurl files java;
  inherit (formationPart) extend formation;
  inherit (imagePart) image;
  inherit (nodePart) node;
  inherit (ociPart) oci;
  inherit (pythonPart) python;
  inherit (runPart) run;
  inherit (rustPart) rust;
  runtimes = part "runtimes" {
    inherit architecture;
    inherit (debianPart) debian;
    inherit (formationPart) formation;
    inherit (pythonPart) python;
  };
}
