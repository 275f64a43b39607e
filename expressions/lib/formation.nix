# Formations: what users write of one, as the evaluator hands it on.
{
  architecture,
  fail,
  isLayer,
  layer,
  parseLimits,
  realiseFor,
  withHooks,
  within,
  wrong,
  ...
}:
let
  inherit (builtins)
    all
    any
    concatLists
    concatStringsSep
    isAttrs
    isFunction
    isInt
    isList
    isString
    map
    mapAttrs
    toJSON
    toString
    typeOf
    ;

  platforms = [
    "linux/amd64"
    "linux/arm64"
  ];

  # Another user's home is what /etc/passwd says when it is run.
  defaultEnvironment =
    user:
    {
      PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
      LANG = "C.UTF-8";
    }
    // (if user == null then { HOME = "/root"; } else { });

  formation =
    specification@{
      name,
      layers,
      version ? "",
      variant ? "",
      platform ? "linux/${architecture}",
      description ? "",
      test ? [ ],
      environment ? { },
      entrypoint ? [ ],
      command ? [ ],
      directory ? null,
      user ? null,
      limits ? { },
      ports ? [ ],
      network ? false,
      stopSignal ? null,
      capabilities ? [ ],
      labels ? { },
      preInstall ? null,
      postInstall ? null,
    }:
    let
      # A setting that is as it should be, or where and how it is not.
      setting =
        name': good: is: value:
        if good then value else wrong specification name' "formation ${name}: `${name'}` is ${is}";
      isTexts = value: isList value && all isString value;
      words =
        name': value:
        setting name' (isTexts value) "a list of strings, for instance [ \"python3\" \"/app/main.py\" ]" value;
      described = setting "description" (isString description) "a string" description;
    in
    {
      _type = "formation";
      inherit name version variant specification;
      platform =
        setting "platform" (builtins.elem platform platforms) "one of ${concatStringsSep " and " platforms}" platform;
      layers =
        if !isList layers then
          setting "layers" false "a list" null
        else if any isFunction layers then
          fail specification "layers" "formation ${name}: a function is no layer; in a list a call stands in parentheses: [ (forge.debian { … }) ]"
        else
          realiseFor (baseNameOf platform) name (withHooks specification (flatten specification layers));
      launch = {
        inherit directory user network stopSignal;
        entrypoint = words "entrypoint" entrypoint;
        command = words "command" command;
        capabilities = setting "capabilities" (isTexts capabilities) "a list of names, for instance [ \"NET_RAW\" ]" capabilities;
        labels =
          (if description == "" then { } else { "org.opencontainers.image.description" = described; })
          // (if words "test" test == [ ] then { } else { "forge.test" = toJSON test; })
          // mapAttrs (name: value: within labels name (toString value)) labels;
        ports = map toString (
          setting "ports" (
            isList ports && all (port: isInt port || isString port) ports
          ) "a list of numbers and texts, for instance [ 8080 \"53/udp\" ]" ports
        );
        environment =
          defaultEnvironment user
          // mapAttrs (name: value: within environment name (toString value)) (
            setting "environment" (isAttrs environment) "an attribute set, for instance { LANG = \"C\"; }" environment
          );
        limits = parseLimits (
          setting "limits" (isAttrs limits) "an attribute set, for instance { memory = \"1G\"; }" limits
        );
      };
    };

  # A formation with more layers and other settings: environment, labels and limits are joined, the rest is replaced.
  extend =
    base: changes:
    let
      old = base.specification or (throw "forge.extend: the first argument is a formation");
    in
    formation (
      removeAttrs old [
        "preInstall"
        "postInstall"
      ]
      // changes
      // {
        # The hooks of what is extended stay where they are: below what is put on top.
        layers = withHooks old (flatten old old.layers) ++ flatten changes (changes.layers or [ ]);
        environment = (old.environment or { }) // (changes.environment or { });
        labels = (old.labels or { }) // (changes.labels or { });
        limits = (old.limits or { }) // (changes.limits or { });
      }
    );

  # Lists of layers may hold lists. `arguments` are what the layers were written in.
  flatten =
    arguments: layers:
    if !isList layers then
      wrong arguments "layers" "layers are a list"
    else
      concatLists (map (item: if isList item then flatten arguments item else [ (checkLayer arguments item) ]) layers);

  checkLayer =
    arguments: value:
    if isLayer value then
      value
    else if isAttrs value && value.type or null == "derivation" then
      layer "derivation" { drv = value; }
    else
      fail arguments "layers" "a layer is what forge.debian, forge.python, forge.node, forge.oci, forge.files or forge.run gives, not a ${typeOf value}";
in
{
  inherit extend flatten formation;
}
