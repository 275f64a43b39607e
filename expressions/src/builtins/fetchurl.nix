# A download: what it must be is said by one hash, in one of several ways.
{
  url,
  hash ? "",
  md5 ? "",
  sha1 ? "",
  sha256 ? "",
  sha512 ? "",
  # The first that is given, else SHA-256, given or not.
  outputHash ? null,
  outputHashAlgo ? null,
  executable ? false,
  unpack ? false,
  name ? baseNameOf (toString url),
  impure ? false,
  system ? "",
}:
let
  choose =
    pick:
    builtins.head (
      builtins.filter (candidate: candidate.text != "" || candidate.last or false) [
        { text = hash; value = pick hash ""; }
        { text = sha512; value = pick sha512 "sha512"; }
        { text = sha1; value = pick sha1 "sha1"; }
        { text = md5; value = pick md5 "md5"; }
        { text = sha256; value = pick sha256 "sha256"; last = true; }
      ]
    );
  fixed = if impure then { __impure = true; } else {
    outputHash = if outputHash != null then outputHash else (choose (text: _: text)).value;
    outputHashAlgo = if outputHashAlgo != null then outputHashAlgo else (choose (_: algorithm: algorithm)).value;
  };
in
derivation (
  {
    inherit executable name unpack url;
    builder = "builtin:fetchurl";
    system = "builtin";
    outputHashMode = if unpack || executable then "recursive" else "flat";
    preferLocalBuild = true;
    urls = [ url ];
    impureEnvVars = map (protocol: "${protocol}_proxy") [ "http" "https" "ftp" "all" "no" ];
  }
  // fixed
)
