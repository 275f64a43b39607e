# A directory of the project without what its `.gitignore` files leave out (gitignore(5)), and without `.git`.
let
  inherit (builtins)
    attrNames
    concatLists
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    head
    isString
    length
    map
    mapAttrs
    match
    pathExists
    readDir
    readFile
    replaceStrings
    split
    stringLength
    substring
    tail
    ;

  lines = text: filter isString (split "\r?\n" text);

  # A pattern as an extended regular expression, a letter at a time.
  regex =
    pattern:
    let
      special = [
        "."
        "+"
        "("
        ")"
        "|"
        "^"
        "$"
        "{"
        "}"
      ];
      go =
        rest:
        if rest == "" then
          ""
        else if substring 0 3 rest == "**/" then
          "(.*/)?" + go (substring 3 (-1) rest)
        else if rest == "/**" then
          "/.+"
        else if substring 0 4 rest == "/**/" then
          "/(.*/)?" + go (substring 4 (-1) rest)
        else if substring 0 1 rest == "*" then
          "[^/]*" + go (replaceStars rest)
        else if substring 0 1 rest == "?" then
          "[^/]" + go (substring 1 (-1) rest)
        else if substring 0 1 rest == "\\" && stringLength rest > 1 then
          quote (substring 1 1 rest) + go (substring 2 (-1) rest)
        else if substring 0 1 rest == "[" && match "\\[!?[]]?[^]]+].*" rest != null then
          let
            found = match "\\[(!?)([]]?[^]]+)](.*)" rest;
          in
          "[" + (if elemAt found 0 == "!" then "^" else "") + elemAt found 1 + "]" + go (elemAt found 2)
        else
          quote (substring 0 1 rest) + go (substring 1 (-1) rest);
      replaceStars = rest: elemAt (match "\\*+(.*)" rest) 0;
      quote =
        letter:
        if elem letter special then
          "[${letter}]"
        else if elem letter [ "*" "?" "[" "\\" ] then
          "\\${letter}"
        else
          letter;
    in
    # A caret alone is no class.
    replaceStrings [ "[^]" ] [ "\\^" ] (go pattern);

  # A line of a `.gitignore`; none if it says nothing.
  rule =
    line:
    let
      text = elemAt (match "(.*[^ ]|) *" line) 0;
      isNegated = match "!.*" text != null;
      body = if isNegated then substring 1 (-1) text else text;
      onlyDirectories = match ".*/" body != null;
      bare = if onlyDirectories then elemAt (match "(.*[^/])/+|/+" body) 0 else body;
      isAnchored = bare != null && match ".*/.*" bare != null;
      pattern = if bare != null && match "/.*" bare != null then substring 1 (-1) bare else bare;
    in
    if text == "" || match "#.*" text != null || bare == null || pattern == "" then
      [ ]
    else
      [
        {
          inherit isNegated onlyDirectories;
          expression = if isAnchored then regex pattern else "(.*/)?" + regex pattern;
        }
      ];

  # What is known of a directory, and lazily of those in it: its rules, each with how much of a path is above its file.
  know =
    above: path: prefix:
    let
      file = path + "/.gitignore";
      own = if pathExists file then concatLists (map rule (lines (readFile file))) else [ ];
      rules = above ++ map (item: item // { inherit prefix; }) own;
    in
    {
      inherit rules;
      directories = mapAttrs (name: _: know rules (path + "/${name}") "${prefix}${name}/") (readDir path);
    };

  isIgnored =
    rules: relative: type:
    foldl' (
      ignored: rule:
      let
        inside = substring (stringLength rule.prefix) (-1) relative;
        fits = (!rule.onlyDirectories || type == "directory") && match rule.expression inside != null;
      in
      if fits then !rule.isNegated else ignored
    ) false rules;
in
root:
let
  known = know [ ] root "";
  top = stringLength (toString root) + 1;
  rulesOf = node: parts: if length parts <= 1 then node.rules else rulesOf node.directories.${head parts} (tail parts);
in
builtins.path {
  path = root;
  # A fixed name: where the project lies must not show.
  name = "source";
  filter =
    path: type:
    let
      relative = substring top (-1) path;
      parts = filter isString (split "/" relative);
    in
    elemAt parts (length parts - 1) != ".git" && !isIgnored (rulesOf known parts) relative type;
}
