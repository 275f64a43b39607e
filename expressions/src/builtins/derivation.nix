# `derivation`: what it was given and, for every output, the same with that output's path.
attributes@{ outputs ? [ "out" ], ... }:
let
  named = derivationStrict attributes;
  common = attributes // builtins.listToAttrs each // {
    all = map (entry: entry.value) each;
    drvAttrs = attributes;
  };
  each = map (outputName: {
    name = outputName;
    value = common // {
      inherit outputName;
      outPath = named.${outputName};
      drvPath = named.drvPath;
      type = "derivation";
    };
  }) outputs;
in
(builtins.head each).value
