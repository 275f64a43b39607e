# What the library's files share: steps, downloads, layers as values, and lists without repetition.
{
  # For instance "x86_64-linux".
  system,
}:
let
  inherit (builtins)
    attrNames
    elem
    elemAt
    filter
    foldl'
    isAttrs
    match
    replaceStrings
    sort
    toJSON
    ;

  unique = list: foldl' (seen: item: if elem item seen then seen else seen ++ [ item ]) [ ] list;
  sorted = list: sort (a: b: a < b) (unique list);
  # For `lock`: the attribute of this name in what the user wrote.
  originOf = set: name: { inherit set name; };
  notNull = set: removeAttrs set (filter (name: set.${name} == null) (attrNames set));

  # A Nix store path name: Debian's versions have `:` and `~`, which Nix does not allow.
  storeName = replaceStrings [ "~" ":" "%" "!" "@" " " "/" ] [ "_" "_" "_" "_" "_" "_" "_" ];

  # By builder, where it is not 1: what the same question would be answered with now. It makes another question of it, so that no
  # answer of an older forge is taken for it.
  versions = {
    debian-configure = 4;
    python-environment = 2;
  };

  step =
    kind: name: parameters:
    derivation (
      {
        inherit system;
        name = storeName name;
        builder = "builtin:${kind}";
        parameters = toJSON parameters;
      }
      // (if versions ? ${kind} then { version = versions.${kind}; } else { })
    );

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
in
{
  inherit
    baseName
    download
    downloadIntegrity
    isLayer
    layer
    notNull
    originOf
    sorted
    step
    storeName
    unique
    ;
}
