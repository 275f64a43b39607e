# Python: projects of the package index, resolved by us or by a lock file that its user already has.
{
  architecture,
  checked,
  download,
  holds,
  is,
  layer,
  lock,
  orNull,
  relative,
  sorted,
  step,
  ...
}:
let
  inherit (builtins)
    elem
    filter
    hashFile
    map
    match
    ;

  # `requirements` as pip takes them; or `lock`: a uv.lock, pylock.toml, requirements.txt with hashes, or pyproject.toml.
  python =
    arguments@{
      requirements ? [ ],
      lock ? null,
      extras ? [ ],
      groups ? [ ],
      python ? null,
      bytecode ? null,
    }:
    let
      kinds = [
        "modules"
        "all"
        "none"
      ];
      isAlone = lock != null || !(arguments ? extras || arguments ? groups || !(arguments ? requirements));
    in
    checked "forge.python" arguments [
      (is.texts "requirements" requirements "[ \"numpy\" \"pandas>=2\" ]")
      (orNull is.text "python" python "\"3.11\"")
      (orNull (is.path "a lock file") "lock" lock "./uv.lock")
      (is.texts "extras" extras null)
      (is.texts "groups" groups "[ \"dev\" ]")
      (is.such "\"modules\", \"all\" or \"none\"" (bytecode == null || elem bytecode kinds) "bytecode" bytecode null)
      (holds (lock == null || requirements == [ ]) "requirements" "give either `requirements` or `lock`")
      (holds isAlone (if arguments ? extras then "extras" else "groups") "`requirements` is missing, or a `lock` that has them")
    ] (layer "python" {
      inherit
        arguments
        requirements
        lock
        extras
        groups
        python
        bytecode
        ;
    });

  pythonLayer =
    below:
    {
      requirements,
      file,
      python,
      glibc,
      bytecode,
      origins,
    }:
    let
      target = {
        inherit python glibc;
        platform = "linux/${architecture}";
      };
      records =
        if file == null then
          lock origins "python" (target // { inherit requirements; })
        else
          lock origins "python-lock" (
            target
            // {
              url = relative file.lock;
              sha256 = hashFile "sha256" file.lock;
            }
            // (if file.extras == [ ] then { } else { extras = sorted file.extras; })
            // (if file.groups == [ ] then { } else { groups = sorted file.groups; })
          );
      fetched =
        record:
        download {
          name = record.file;
          url = "python:${record.name}/${record.file}";
          inherit (record) sha256;
          size = record.size or null;
        };
      wheel =
        record:
        step "wheel" "${record.name}-${record.version}" {
          inherit (record) file;
          inherit python;
          wheel = fetched record;
        };
      # Built from its source, with what building needs.
      built =
        record:
        step "python-source" "${record.name}-${record.version}" {
          inherit (record) file;
          inherit python;
          layers = below;
          source = fetched record;
          wheels = map wheel (filter (other: other.for or null == record.name) records);
        };
      isWheel = record: match ".*[.]whl" record.file != null;
      installed = filter (record: !(record ? for)) records;
    in
    {
      label = "python ${python}";
      drv = step "python-environment" "python-${python}" {
        layers = below;
        wheels = map (record: if isWheel record then wheel record else built record) installed;
        inherit python bytecode;
      };
    };
in
{
  inherit python pythonLayer;
}
