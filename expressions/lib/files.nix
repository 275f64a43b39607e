# Files: of the project, of the network by digest, and texts; OpenJDK's jars among them.
{
  baseName,
  checked,
  download,
  fail,
  is,
  layer,
  lock,
  orNull,
  originOf,
  step,
  within,
  ...
}:
let
  inherit (builtins)
    all
    any
    attrNames
    concatStringsSep
    elemAt
    filter
    genList
    groupBy
    hasAttr
    hasContext
    head
    isAttrs
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    readFileType
    split
    stringLength
    substring
    toFile
    typeOf
    ;

  # Files and directories of the project (paths), downloads (derivations) and texts (strings), by where they go.
  files =
    contents:
    if isAttrs contents then
      consistent contents (layer "files" { inherit contents; })
    else
      throw "forge.files: takes an attribute set, for instance { \"/app\" = ./app; }, not a ${typeOf contents}";

  # The names of a path, from the top; fails where a target is no path.
  partsOf =
    contents: target:
    let
      parts = filter (part: isString part && part != "" && part != ".") (split "/" target);
    in
    if substring 0 1 target != "/" then
      fail contents target "forge.files: `${target}` is no absolute path: one inside a formation starts with `/`"
    else if any (part: part == ".." || stringLength part > 255) parts then
      fail contents target "forge.files: `${target}` is no path inside a formation"
    else
      parts;

  # What something is in words, if it is known to be no directory: what is built or fetched is known only then.
  fileKind =
    value:
    if isPath value then
      {
        directory = null;
        symlink = "a symlink";
      }
      .${readFileType value} or "a file"
    else if isString value && !hasContext value then
      "a text"
    else
      null;

  # Gives `value` if every target is a path of its own, and nothing lies below what is no directory. Into a directory more may be put.
  consistent =
    contents: value:
    let
      written = parts: "/${concatStringsSep "/" parts}";
      entries = map (target: { inherit target; parts = partsOf contents target; }) (attrNames contents);
      byPath = groupBy (entry: written entry.parts) entries;
      check =
        { target, parts }:
        let
          same = byPath.${written parts};
          first = (head same).target;
          above = map (depth: written (genList (elemAt parts) depth)) (genList (depth: depth) (length parts));
          kindAt = path: fileKind contents.${(head byPath.${path}).target};
          files = filter (path: hasAttr path byPath && kindAt path != null) above;
        in
        if first != target then
          fail contents target "forge.files: `${target}` is the same path as `${first}`"
        else if parts == [ ] && fileKind contents.${target} != null then
          fail contents target "forge.files: the root is a directory, not ${fileKind contents.${target}}"
        else if files != [ ] then
          fail contents target "forge.files: `${target}` lies below `${head files}`, which is ${kindAt (head files)}"
        else
          true;
    in
    if all check entries then value else null;

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
        else if isString value && hasContext value || isAttrs value then
          "${value}"
        else if isString value then
          toFile "text" value
        else
          fail contents target "forge.files: ${target} is a path, a text or a derivation, not a ${typeOf value}";
    in
    {
      label = "files ${concatStringsSep " " (attrNames contents)}";
      drv = step "files" "files" {
        files = mapAttrs (target: value: within contents target (source target value)) contents;
      };
    };

  # A file of the network. Without `sha256` the lock keeps what it was when it was first fetched.
  fetchurl =
    arguments@{
      url,
      sha256 ? null,
      name ? baseName url,
    }:
    let
      record = head (lock [ (originOf arguments "url") ] "url" { inherit url; });
    in
    checked "forge.fetchurl" arguments [
      (is.text "url" url null)
      (orNull is.text "sha256" sha256 null)
    ] (
      if sha256 != null then
        download { inherit name url sha256; }
      else
        download {
          inherit name url;
          inherit (record) sha256 size;
        }
    );

  # OpenJDK of Debian, and jars by name: paths, or downloads (forge.fetchurl).
  java =
    arguments@{
      version ? "17",
      jdk ? false,
      jars ? { },
      directory ? "/app/lib",
    }:
    checked "forge.java" arguments [
      (is.text "version" version "\"17\"")
      (is.bool "jdk" jdk null)
      (is.set "jars" jars "{ \"app.jar\" = ./app.jar; }")
      (is.absolute "directory" directory null)
    ] (layer "java" {
      inherit
        arguments
        version
        jars
        directory
        ;
      flavour = if jdk then "jdk-headless" else "jre-headless";
    });

  # The jars; OpenJDK itself is among Debian's packages.
  javaLayers =
    { directory, jars, ... }:
    let
      entry = name: {
        name = "${directory}/${name}";
        value = jars.${name};
      };
    in
    if jars == { } then
      [ ]
    else
      [ (filesLayer (files (listToAttrs (map entry (attrNames jars)))) // { label = "java ${directory}"; }) ];
in
{
  inherit
    fetchurl
    files
    filesLayer
    java
    javaLayers
    ;
}
