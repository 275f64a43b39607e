# `builtins.getFlake`: a flake by its reference. What it needs of others is what its `flake.lock` says.
reference:
let
  attributes = __parseFlakeRef reference;
  rootDirectory = attributes.dir or "";
  counted = if attributes.type == "git" then { shallow = false; } else { };
  rootSource = __fetchTree (counted // removeAttrs attributes [ "dir" ]);

  below = path: directory: if directory == "" then path else path + "/" + directory;
  rootPath = below rootSource.outPath rootDirectory;
  rootInputs = (import (rootPath + "/flake.nix")).inputs or { };

  lockFile = rootPath + "/flake.lock";
  lock =
    if __pathExists lockFile then
      __fromJSON (__readFile lockFile)
    else
      {
        root = "root";
        nodes.root = { };
        version = 7;
      };
  unlocked = __filter (name: name != "self" && !(lock.nodes.${lock.root}.inputs or { } ? ${name})) (
    __attrNames rootInputs
  );

  # What an input is: the name of a node, or the way to it from the root.
  node = input: if __isList input then follow lock.root input else input;
  follow =
    from: way:
    if way == [ ] then from else follow (node lock.nodes.${from}.inputs.${__head way}) (__tail way);

  made = __mapAttrs make lock.nodes;
  make =
    key: description:
    let
      locked = description.locked;
      parent = made.${follow lock.root (description.parent or [ ])};
      # A flake in the same tree as the one that names it.
      inParent = locked.type == "path" && __substring 0 1 (locked.path or "/") != "/";
      source =
        if key == lock.root then
          rootSource
        else if inParent then
          parent.sourceInfo // { outPath = parent.path + ("/" + locked.path); }
        else
          __fetchTree (removeAttrs locked [ "dir" ]);
      path = below source.outPath (if key == lock.root then rootDirectory else locked.dir or "");
      file = import (path + "/flake.nix");
      inputs = __mapAttrs (name: input: made.${node input}.flake) (description.inputs or { });
      outputs = file.outputs (inputs // { self = flake; });
      flake =
        outputs
        // source
        // {
          inherit inputs outputs;
          outPath = path;
          sourceInfo = source;
          _type = "flake";
        };
    in
    {
      inherit path;
      sourceInfo = source;
      flake =
        if !(description.flake or true) then
          source // { sourceInfo = source; }
        else if __isFunction (file.outputs or null) then
          flake
        else
          throw "flake '${path}' has no function `outputs`";
    };
in
if (lock.version or 0) < 5 || (lock.version or 0) > 7 then
  throw "lock file '${lockFile}' has version ${toString (lock.version or "none")}, which is not read"
else if unlocked != [ ] then
  throw "flake '${reference}' has inputs that no flake.lock pins: ${__concatStringsSep ", " unlocked}"
else
  made.${lock.root}.flake
