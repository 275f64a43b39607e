# Node: what a `package-lock.json` stands for.
{
  architecture,
  baseName,
  checked,
  downloadIntegrity,
  fail,
  holds,
  is,
  layer,
  step,
  unknown,
  ...
}:
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    fromJSON
    genericClosure
    hasAttr
    head
    isAttrs
    isBool
    isList
    isString
    length
    listToAttrs
    map
    match
    readFile
    split
    stringLength
    substring
    toJSON
    ;

  cpu =
    {
      amd64 = "x64";
      arm64 = "arm64";
    }
    .${architecture};

  # `node_modules` as npm lays it out from a lock of version 2 or 3.
  node =
    arguments@{
      lock,
      directory ? "/app",
      dev ? false,
      optional ? true,
      scripts ? false,
    }:
    let
      text = readFile lock;
      content = fromJSON text;
      version = content.lockfileVersion or null;
      ofScripts = is.such "true, false, or the list of packages whose install scripts may run" (
        isBool scripts || isList scripts && all isString scripts
      );
      idle = if isList scripts then filter (name: !elem name (scriptedNames content.packages)) scripts else [ ];
    in
    checked "forge.node" arguments [
      (is.path "a package-lock.json" "lock" lock "./package-lock.json")
      (is.absolute "directory" directory "\"/app\"")
      (is.bool "dev" dev null)
      (is.bool "optional" optional null)
      (ofScripts "scripts" scripts null)
      (holds (isAttrs content && (version == 2 || version == 3) && isAttrs (content.packages or null)) "lock"
        "`lock` is no package-lock.json of version 2 or 3; `npm install --package-lock-only --lockfile-version 3` writes one"
      )
      (known content.packages idle)
    ] (layer "node" {
      inherit
        arguments
        lock
        directory
        scripts
        ;
      packages = chosen arguments content.packages {
        inherit dev optional;
      };
      links = linksOf content.packages;
    });

  # The names of packages that have an install script, for whatever system they are.
  scriptedNames =
    packages: map nameOf (filter (path: isInstalledPath path && packages.${path}.hasInstallScript or false) (attrNames packages));

  # A rule: `scripts` names nothing that has none.
  known =
    packages: idle:
    let
      wanted = head idle;
      isThere = elem wanted (map nameOf (filter isInstalledPath (attrNames packages)));
    in
    {
      name = "scripts";
      good = idle == [ ];
      message = if isThere then "`${wanted}` has no install script" else "the lock has no package `${wanted}`";
      say = arguments: name: message: unknown arguments name message wanted (scriptedNames packages);
    };

  # What lies in no node_modules is the project's own.
  isInstalledPath = path: match "(.*/)?node_modules/.*" path != null;

  parts = path: filter isString (split "/" path);

  # The name that a path ends with: `@a/b` of `node_modules/x/node_modules/@a/b`.
  nameOf =
    path:
    let
      found = match "(.*/)?node_modules/((@[^/]+/)?[^/]+)" path;
    in
    if found == null then baseName path else elemAt found 1;

  # Whether a list such as [ "linux" "!win32" ] admits a word (npm-install-checks).
  admits =
    wanted: word:
    let
      list = if isList wanted then wanted else [ wanted ];
      denied = filter (item: match "!.*" item != null) list;
      allowed = filter (item: match "!.*" item == null) list;
    in
    wanted == null || list == [ "any" ] || (!elem "!${word}" denied && (allowed == [ ] || elem word allowed));

  fits =
    package: admits (package.os or null) "linux" && admits (package.cpu or null) cpu && admits (package.libc or null) "glibc";

  # Which of a lock's packages are installed, by path.
  chosen =
    arguments: packages: wanted:
    let
      isOmitted =
        package:
        (!wanted.dev && package.dev or false)
        || (!wanted.optional && package.optional or false)
        || (!wanted.dev && !wanted.optional && package.devOptional or false);
      present = filter (path: path != "" && !isOmitted packages.${path}) (attrNames packages);
      unfit = filter (path: !fits packages.${path}) present;
      needed = filter (path: !(packages.${path}.optional or false || packages.${path}.devOptional or false)) unfit;
      dropped = if unfit == [ ] then { } else without packages present unfit;
      isInstalled =
        path:
        let
          package = packages.${path};
        in
        # What is bundled comes with the package that bundles it.
        isInstalledPath path
        && !(package.link or false)
        && !(package.inBundle or false)
        && !hasAttr path dropped;
    in
    if needed != [ ] then
      fail arguments "lock" "forge.node: `${nameOf (head needed)}` is not for linux-${cpu}, and not optional"
    else
      map (path: { inherit path; package = packages.${path}; }) (filter isInstalled present);

  # What goes away with packages that do not fit: whoever must have them, and what nobody else needs (npm's "optional set").
  without =
    packages: present: unfit:
    let
      presentSet = listToAttrs (
        map (name: {
          inherit name;
          value = true;
        }) present
      );
      # Where `require` of a name leads from a path; null if nowhere.
      resolve =
        path: name:
        let
          words = parts path;
          above = count: concatStringsSep "" (map (index: "${elemAt words index}/") (builtins.genList (index: index) count));
          candidates = map (back: "${above (length words - back)}node_modules/${name}") (
            builtins.genList (back: back) (length words + 1)
          );
          found = filter (candidate: hasAttr candidate presentSet) candidates;
        in
        if found == [ ] then null else head found;
      edgesOf =
        path:
        let
          package = packages.${path};
          optionals = package.optionalDependencies or { };
          edge = isOptional: name: {
            inherit isOptional;
            from = path;
            to = resolve path name;
          };
          meta = package.peerDependenciesMeta or { };
        in
        filter (edge: edge.to != null) (
          map (edge false) (filter (name: !hasAttr name optionals) (attrNames (package.dependencies or { })))
          ++ map (name: edge (meta.${name}.optional or false) name) (attrNames (package.peerDependencies or { }))
          ++ map (edge true) (attrNames optionals)
        );
      edges = concatLists (map edgesOf present);
      into = builtins.groupBy (edge: edge.to) edges;
      outOf = builtins.groupBy (edge: edge.from) edges;
      keys = map (key: { inherit key; });
      upward = genericClosure {
        startSet = keys unfit;
        operator = item: keys (map (edge: edge.from) (filter (edge: !edge.isOptional) (into.${item.key} or [ ])));
      };
      toSet =
        list:
        listToAttrs (
          map (name: {
            inherit name;
            value = true;
          }) list
        );
      core = toSet (map (item: item.key) upward);
      downward = genericClosure {
        startSet = upward;
        operator = item: keys (map (edge: edge.to) (outOf.${item.key} or [ ]));
      };
      shrink =
        set:
        let
          isNeeded = path: !hasAttr path core && any (edge: !hasAttr edge.from set) (into.${path} or [ ]);
          kept = filter (path: !isNeeded path) (attrNames set);
        in
        if length kept == length (attrNames set) then set else shrink (toSet kept);
    in
    shrink (toSet (map (item: item.key) downward));

  linksOf =
    packages:
    let
      isLink = path: packages.${path}.link or false;
    in
    listToAttrs (
      map (path: {
        name = path;
        value = {
          target = packages.${path}.resolved;
          bin = packages.${packages.${path}.resolved}.bin or { };
        };
      }) (filter isLink (attrNames packages))
    );

  # Files of a registry are asked for by what they are, wherever this machine's registry is, and then at the address in the lock.
  address =
    path: package:
    let
      # An alias lies at another name's path.
      name = package.name or (nameOf path);
      file = "${baseName name}-${package.version}.tgz";
      resolved = package.resolved or "";
      canonical = "/${name}/-/${file}";
      start = stringLength resolved - stringLength canonical;
      isCanonical = start >= 0 && substring start (-1) resolved == canonical;
    in
    if resolved == "" || isCanonical then
      {
        url = "npm:${name}/-/${file}";
        otherwise = if resolved == "" then null else resolved;
      }
    else
      { url = resolved; };

  # The strongest of the digests that npm writes.
  integrityOf =
    arguments: path: package:
    let
      words = filter (word: isString word && word != "") (split " +" (package.integrity or ""));
      of = algorithm: filter (word: match "${algorithm}-.*" word != null) words;
      best = concatLists (map of [ "sha512" "sha256" "sha1" ]);
    in
    if best == [ ] then
      fail arguments "lock" "forge.node: `${nameOf path}` has no `integrity` in the lock: only what is pinned by a digest can be installed"
    else
      head best;

  layers =
    below: description:
    let
      inherit (description)
        arguments
        directory
        lock
        scripts
        ;
      unpacked =
        { path, package }:
        step "npm-package" "${nameOf path}-${package.version or "0"}" {
          package = downloadIntegrity {
            name = "${baseName (nameOf path)}-${package.version or "0"}.tgz";
            source = address path package;
            integrity = integrityOf arguments path package;
          };
        };
      modules = {
        label = "node ${directory}";
        drv = step "node-modules" "node-modules" {
          inherit directory;
          inherit (description) links;
          lock = builtins.path {
            path = lock;
            name = "package-lock.json";
          };
          packages = map (item: {
            inherit (item) path;
            package = unpacked item;
            bin = item.package.bin or { };
          }) description.packages;
        };
      };
      runs =
        { path, package }: package.hasInstallScript or false && (scripts == true || elem (nameOf path) scripts);
      scripted = if scripts == false then [ ] else map (item: item.path) (filter runs description.packages);
      ran = {
        label = "node scripts ${directory}";
        drv = step "run" "node-scripts" {
          command = [
            "/usr/bin/node"
            "-e"
            runScripts
            directory
            (toJSON scripted)
          ];
          directory = directory;
          environment = { };
          layers = below ++ [ modules.drv ];
        };
      };
    in
    if scripted == [ ] then [ modules ] else [ modules ran ];

  # Runs install scripts as npm does: all of one kind before the next, packages in the order of their depth.
  runScripts = ''
    const { spawnSync } = require("child_process"), fs = require("fs"), path = require("path");
    const [top, list] = process.argv.slice(1);
    const depth = (at) => at.split("node_modules/").length;
    const order = JSON.parse(list).sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1));
    for (const event of ["preinstall", "install", "postinstall"]) for (const at of order) {
      const directory = path.join(top, at);
      const about = JSON.parse(fs.readFileSync(path.join(directory, "package.json"), "utf8"));
      const scripts = about.scripts || {};
      let script = scripts[event];
      if (!script && event == "install" && !scripts.preinstall && fs.existsSync(path.join(directory, "binding.gyp")))
        script = "node-gyp rebuild";
      if (!script) continue;
      const bins = [];
      for (let up = directory; up.length >= top.length && up != "/"; up = path.dirname(up)) bins.push(path.join(up, "node_modules/.bin"));
      const env = { ...process.env, PATH: bins.concat(process.env.PATH).join(":"), INIT_CWD: top, npm_lifecycle_event: event,
        npm_lifecycle_script: script, npm_package_name: about.name, npm_package_version: about.version, npm_node_execpath: process.execPath,
        NODE: process.execPath, npm_config_user_agent: "npm", npm_config_nodedir: "/usr", npm_package_json: path.join(directory, "package.json") };
      console.error("> " + about.name + "@" + about.version + " " + event + "\n> " + script);
      const ended = spawnSync("/bin/sh", ["-c", script], { cwd: directory, env, stdio: ["ignore", "inherit", "inherit"] });
      if (ended.status !== 0) { console.error(about.name + ": " + event + " failed"); process.exit(ended.status || 1); }
    }
  '';
in
{
  inherit layers node;
}
