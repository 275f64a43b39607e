# Sizes, times and counts as people write them.
{ fail, wrong }:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    elem
    elemAt
    filter
    head
    isFloat
    isInt
    isString
    map
    match
    ;

  power = base: exponent: if exponent == 0 then 1 else base * power base (exponent - 1);

  # "512M", "1.5GiB" and 1024 are bytes; K, M, G and T are powers of 1024, as systemd and Docker read them.
  parseBytes =
    value:
    let
      parts = match "([0-9]+)([.]([0-9]{1,3}))?([KMGT]?)(i?B?)?" value;
      exponents = {
        "" = 0;
        K = 1;
        M = 2;
        G = 3;
        T = 4;
      };
    in
    if isInt value then
      value
    else if !isString value || parts == null then
      null
    else
      scaled (elemAt parts 0) (elemAt parts 2) (power 1024 exponents.${elemAt parts 3});

  # A decimal number times a unit, in whole numbers only; null if there is no such integer.
  scaled =
    whole: fraction: unit:
    let
      digits = if fraction == null then "0" else fraction;
      thousandths = number (builtins.substring 0 3 "${digits}00");
      most = 9223372036854775807 / unit - 1;
    in
    if match "0*[0-9]{1,18}" whole == null || number whole > most then
      null
    else
      number whole * unit + thousandths * (unit / 1000) + thousandths * (unit - unit / 1000 * 1000) / 1000;

  scaledInteger = value: unit: if value > 9223372036854775807 / unit then null else value * unit;

  # Leading zeros are no JSON.
  number = digits: builtins.fromJSON (head (match "0*([0-9]+)" digits));

  parseDuration =
    value:
    let
      parts = match "([0-9]+)([.]([0-9]{1,3}))?(ms|s|m|h|d)?" value;
      units = {
        ms = 1;
        s = 1000;
        m = 60 * 1000;
        h = 60 * 60 * 1000;
        d = 24 * 60 * 60 * 1000;
      };
      unit = elemAt parts 3;
    in
    if isInt value then
      scaledInteger value 1000
    else if !isString value || parts == null then
      null
    else
      scaled (elemAt parts 0) (elemAt parts 2) units.${if unit == null then "s" else unit};

  parseCpus =
    value:
    let
      parts = match "([0-9]+)([.]([0-9]{1,3}))?" value;
    in
    if isInt value then
      scaledInteger value 1000
    else if isFloat value then
      if value < 1.0e9 then builtins.floor (value * 1000 + 0.5) else null
    else if !isString value || parts == null then
      null
    else
      scaled (elemAt parts 0) (elemAt parts 2) 1000;

  parseLimits =
    limits:
    let
      parsers = {
        memory = {
          target = "memory";
          parse = parseBytes;
          wanted = "a number of bytes such as \"512M\" or \"2G\"";
        };
        cpus = {
          target = "cpu_millis";
          parse = parseCpus;
          wanted = "a number of processors such as 2 or 0.5";
        };
        pids = {
          target = "pids";
          parse = value: if isInt value then value else null;
          wanted = "a number of processes";
        };
        timeout = {
          target = "timeout_millis";
          parse = parseDuration;
          wanted = "a time such as \"90s\", \"10m\" or \"2h\"";
        };
      };
      names = attrNames parsers;
      unknown = filter (name: !(elem name names)) (attrNames limits);
      limit =
        name:
        let
          parser = parsers.${name};
          given = limits.${name} or null;
          value = parser.parse given;
        in
        {
          name = parser.target;
          value =
            if given == null then
              null
            else if value == null || value <= 0 then
              wrong limits name "limits.${name} is ${parser.wanted}"
            else
              value;
        };
    in
    if unknown != [ ] then
      fail limits (head unknown) "limits has no `${head unknown}`: there are ${concatStringsSep ", " names}"
    else
      builtins.listToAttrs (map limit names);
in
{
  inherit parseBytes parseDuration parseLimits;
}
