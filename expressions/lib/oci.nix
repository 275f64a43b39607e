# Images that others made: of a registry, pinned by the lock, or a layout in the project.
{
  architecture,
  baseName,
  download,
  fail,
  layer,
  lock,
  originOf,
  step,
  wrong,
  ...
}:
let
  inherit (builtins)
    attrNames
    concatStringsSep
    elemAt
    filter
    foldl'
    fromJSON
    genList
    head
    isPath
    isString
    length
    listToAttrs
    map
    match
    pathExists
    readFile
    substring
    ;

  # An image as a layer, and as the base of `forge.extend`: then its settings come along.
  oci =
    arguments@{
      image,
      platform ? "linux/${architecture}",
    }:
    let
      content = if isPath image then ofLayout arguments else ofRegistry arguments platform;
      self = layer "oci" {
        inherit arguments content;
        specification = specificationOf content // {
          layers = [ self ];
        };
      };
    in
    if !isString platform || match "linux/[a-z0-9]+(/[a-z0-9]+)?" platform == null then
      wrong arguments "platform" "forge.oci: `platform` is a string, for instance \"linux/arm64\""
    else if isPath image then
      if pathExists (image + "/index.json") then
        self
      else
        fail arguments "image" "forge.oci: there is no OCI layout at this path: a directory with an `index.json` is expected (an archive is unpacked with `tar -x`)"
    else if !isString image then
      wrong arguments "image" "forge.oci: `image` is a string, for instance \"registry.example/team/app:1.0\", or the path of an OCI layout"
    else if reference image == null then
      fail arguments "image" "forge.oci: `image` names a registry, a repository and a tag or digest: \"registry.example/team/app:1.0\""
    else
      self;

  # The parts of HOST/REPOSITORY[:TAG][@DIGEST]; null if it is none.
  reference =
    image:
    let
      found = match "(oci://)?([^/@]+)/([^:@]+)(:([^:@/]+))?(@(sha256:[0-9a-f]{64}))?" image;
      at = elemAt found;
    in
    if found == null then
      null
    else
      {
        repository = "${at 1}/${at 2}";
        name = baseName (at 2);
        tag = at 4;
        # As the lock is asked: without a scheme.
        text = "${at 1}/${at 2}${if at 3 == null then "" else at 3}${if at 5 == null then "" else at 5}";
      };

  ofRegistry =
    arguments@{ image, ... }:
    platform:
    let
      wanted = reference image;
      records = lock [ (originOf arguments "image") ] "oci" {
        image = wanted.text;
        inherit platform;
      };
      layers = filter (record: record ? layer) records;
      at = index: head (filter (record: record.layer == index) layers);
      abouts = filter (record: record ? settings) records;
      # So that whoever asks where a layer is from is told the image.
      pinned = if abouts == [ ] then "" else "@${(head abouts).manifest}";
    in
    {
      inherit (wanted) name;
      inherit platform;
      version = if wanted.tag == null || wanted.tag == "latest" then "" else wanted.tag;
      settings = if abouts == [ ] then { } else fromJSON (head abouts).settings;
      layers = genList (
        index:
        let
          record = at index;
        in
        {
          inherit (record) unpacked;
          file = download {
            name = "${wanted.name}-layer-${substring 0 12 record.sha256}";
            url = "oci:${wanted.repository}${pinned}";
            inherit (record) sha256 size;
          };
        }
      ) (length layers);
    };

  # A layout's documents are read here, by their digests' names; its layers are hashed when they are taken in.
  ofLayout =
    arguments@{
      image,
      platform ? "linux/${architecture}",
    }:
    let
      blob =
        descriptor:
        let
          found = match "(sha256|sha512):([0-9a-f]+)" descriptor.digest;
        in
        if found == null then
          fail arguments "image" "forge.oci: the layout names something by `${descriptor.digest}`, which is no digest"
        else
          image + "/blobs/${elemAt found 0}/${elemAt found 1}";
      document = descriptor: fromJSON (readFile (blob descriptor));
      # Indexes may lie in indexes; Docker and Podman go no deeper.
      flat =
        depth: manifests:
        builtins.concatLists (
          map (
            entry:
            if match ".*(image\\.index|manifest\\.list).*" (entry.mediaType or "") != null then
              if depth > 3 then
                fail arguments "image" "forge.oci: the layout's indexes have no end"
              else
                flat (depth + 1) ((document entry).manifests or [ ])
            else if entry ? artifactType || entry.platform.os or "" == "unknown" then
              [ ]
            else
              [ entry ]
          ) manifests
        );
      platformOf =
        entry:
        let
          of = if entry ? platform then entry.platform else document (document entry).config;
        in
        "${of.os}/${of.architecture}";
      entries = flat 0 ((fromJSON (readFile (image + "/index.json"))).manifests or [ ]);
      fitting = filter (entry: platformOf entry == concatStringsSep "/" (firstTwo platform)) entries;
      chosen =
        if length fitting == 1 then
          head fitting
        else if fitting == [ ] then
          fail arguments "image" "forge.oci: the layout has no image for ${platform}"
        else
          fail arguments "image" "forge.oci: the layout has ${toString (length fitting)} images for ${platform}: copy one of them out first";
      manifest = document chosen;
      config = document manifest.config;
      called = chosen.annotations."org.opencontainers.image.ref.name" or "";
      names = match "(.*/)?([^/:@]+)(:([^:@]+))?" called;
      version = if names == null then null else elemAt names 3;
    in
    {
      inherit platform;
      name = if names == null then baseName (toString image) else elemAt names 1;
      version = if version == null || version == "latest" then "" else version;
      settings = removeLabel (config.config or { });
      layers = genList (index: {
        unpacked = elemAt config.rootfs.diff_ids index;
        file = builtins.path {
          path = blob (elemAt manifest.layers index);
          name = "layer-${toString index}";
        };
      }) (length manifest.layers);
    };

  firstTwo =
    platform:
    let
      found = match "([^/]+)/([^/]+).*" platform;
    in
    [
      (elemAt found 0)
      (elemAt found 1)
    ];

  removeLabel =
    settings: settings // { Labels = removeAttrs (orEmpty { } (settings.Labels or null)) [ "forge.formation" ]; };

  # Go writes null for what is not there.
  orEmpty = empty: value: if value == null then empty else value;

  specificationOf =
    content:
    let
      inherit (content) settings;
      words = name: orEmpty [ ] (settings.${name} or null);
      text = name: orEmpty "" (settings.${name} or null);
      variable =
        line:
        let
          found = match "([^=]+)=(.*)" line;
        in
        if found == null then
          [ ]
        else
          [
            {
              name = elemAt found 0;
              value = elemAt found 1;
            }
          ];
      given = name: value: if value == "" then { } else { ${name} = value; };
    in
    {
      inherit (content) name version;
      environment = listToAttrs (builtins.concatLists (map variable (words "Env")));
      entrypoint = words "Entrypoint";
      command = words "Cmd";
      ports = map (port: if match ".*/udp" port != null then port else head (match "([0-9]+).*" port)) (
        attrNames (orEmpty { } (settings.ExposedPorts or null))
      );
      labels = orEmpty { } (settings.Labels or null);
    }
    // given "directory" (text "WorkingDir")
    // given "user" (text "User")
    // given "stopSignal" (text "StopSignal");

  layers =
    below: description:
    let
      inherit (description) content;
      place =
        made: item:
        made
        ++ [
          {
            label = "oci ${content.name} ${toString (length made + 1)}";
            drv = step "oci-layer" "${content.name}-${toString (length made + 1)}" {
              layer = item.file;
              inherit (item) unpacked;
              layers = below ++ map (item: item.drv) made;
            };
          }
        ];
    in
    foldl' place [ ] content.layers;
in
{
  inherit layers oci;
}
