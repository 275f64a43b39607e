# A formation as a file that others read: what `forge export` writes, as a derivation.
{
  checked,
  is,
  step,
  ...
}:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    isAttrs
    map
    replaceStrings
    ;

  # By format: what the file's name ends in.
  suffixes = {
    oci = "oci.tar";
    sif = "sif";
    squashfs = "squashfs";
    tar = "tar";
  };

  image =
    arguments@{
      formation,
      format ? "oci",
    }:
    let
      parts = [
        formation.name
        formation.version
        formation.variant
        (replaceStrings [ "/" ] [ "-" ] formation.platform)
      ];
      name = concatStringsSep "-" (builtins.filter (part: part != "") parts);
    in
    checked "forge.image" arguments [
      (is.such "a formation" (isAttrs formation && formation._type or null == "formation") "formation" formation
        "forge.image { formation = forge.formation { … }; }"
      )
      (is.such "one of ${concatStringsSep ", " (attrNames suffixes)}" (
        suffixes ? ${if builtins.isString format then format else ""}
      ) "format" format null)
    ] (step "image" "${name}.${suffixes.${format}}" {
      inherit format;
      inherit (formation)
        name
        version
        variant
        platform
        launch
        ;
      layers = map (item: {
        inherit (item) label;
        layer = "${item.drv}";
      }) formation.layers;
    });
in
{
  inherit image;
}
