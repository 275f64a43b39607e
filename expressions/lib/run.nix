# Commands whose changes are a layer, and a formation's hooks, which are such.
{
  checked,
  holds,
  is,
  layer,
  orNull,
  parseDuration,
  step,
  within,
  wrong,
  ...
}:
let
  inherit (builtins)
    head
    isAttrs
    isString
    mapAttrs
    match
    tail
    toString
    ;

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
      hosts ? [ ],
      outputHash ? null,
    }:
    let
      aTime = is.such "a time such as \"90s\" or \"20m\"" (timeout == null || parseDuration timeout != null);
      isId = outputHash == null || match "([0-9a-f]{64})?" outputHash != null;
      anId = is.such "the id of what must come out, 64 hexadecimal digits, or \"\" at first" isId;
    in
    checked "forge.run" arguments [
      (holds ((command == null) != (script == null)) "script" "give either `command` (a list of strings) or `script` (a text for /bin/sh)")
      (orNull is.texts "command" command "[ \"make\" \"install\" ]")
      (orNull is.script "script" script null)
      (is.text "name" name null)
      (is.set "environment" environment "{ LANG = \"C\"; }")
      (is.text "directory" directory "\"/app\"")
      (orNull is.layers "layers" layers null)
      (orNull is.texts "keep" keep "[ \"/usr/local/bin\" ]")
      (aTime "timeout" timeout null)
      (is.texts "hosts" hosts "[ \"host.example\" ]")
      (orNull is.text "outputHash" outputHash null)
      (anId "outputHash" outputHash null)
      (holds (hosts == [ ] || outputHash != null) "hosts" "what sees the network says what must come out of it: `outputHash` (\"\" at first; the failure names it)")
    ] (layer "run" {
      inherit
        arguments
        name
        layers
        environment
        directory
        timeout
        keep
        hosts
        outputHash
        ;
      command = if command != null then command else [ "/bin/sh" "-euc" script ];
    });

  # `given`: the drvs of the layers it runs over.
  runLayer =
    given:
    {
      name,
      command,
      environment,
      directory,
      timeout,
      keep,
      hosts,
      outputHash,
      ...
    }:
    let
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
          layers = given;
        }
        // (if timeout == null then { } else { timeout = parseDuration timeout; })
        // (if outputHash == null then { } else { inherit hosts outputHash; })
      ));
    };

  # Layers with a formation's hooks: `preInstall` over the lowest layer, before the others; `postInstall` over all of them.
  withHooks =
    specification: layers:
    let
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
    ++ (if layers == [ ] then [ ] else tail layers)
    ++ hook "postInstall";
in
{
  inherit run runLayer withHooks;
}
