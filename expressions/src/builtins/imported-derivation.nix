# What importing the file of a derivation gives: its first output, as a derivation. `outputs` are names and texts in order of the names.
{ drvPath, name, outputs }:
let
  every = map (output: {
    inherit (output) name;
    value = shared // {
      outPath = output.text;
      outputName = output.name;
    };
  }) outputs;
  shared = builtins.listToAttrs every // {
    inherit drvPath name;
    all = map (output: output.value) every;
    type = "derivation";
  };
in
(builtins.head every).value
