//! The image in which a runner container starts: forge's own static program and nothing else, as a formation.
//!
//! It is named by its digest, loaded into an engine once, and looked for by that name from then on. The same program gives the same
//! image everywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use executor::backend::runner::{Engine, Error};
use store::directory::Record;
use store::format::{Compression, Options, oci};
use store::{Formation, FormationId, Launch, Metadata, Name, Node, Store, Tree};

use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::words::say;

/// The formation's name, and the image's.
const NAME: &str = "forge-runner";
/// Directories that engines, or forge inside, mount onto: the root of the container is read-only.
const DIRECTORIES: [&str; 8] = ["dev", "etc", "formation", "forge", "proc", "run", "sys", "tmp"];

/// Makes the formation of a program: this one, or another architecture's. If a platform is named, the program must be for it.
pub fn formation(store: &Store, binary: Option<&Path>, platform: Option<&str>) -> Result<FormationId> {
    let path = match binary {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| Failure::new(code::NOT_FOUND, "cannot find this program's own file").caused_by(&error))?,
    };
    let bytes = std::fs::read(&path).map_err(|error| {
        Failure::new(code::NOT_FOUND, format!("cannot read `{}`", path.display())).cause(error.to_string())
    })?;
    let architecture = static_architecture(&bytes).map_err(|reason| {
        let failure = Failure::new(code::USAGE, format!("`{}` cannot be a runner image: {reason}", path.display()));
        failure
            .hint("--binary FILE names another `forge`; a setting `runner.image` names an image that somebody pushed")
    })?;
    if let Some(wanted) = platform.filter(|wanted| wanted.trim_start_matches("linux/") != architecture) {
        let headline = format!("`{}` is a program for linux/{architecture}, not for {wanted}", path.display());
        return Err(Failure::new(code::USAGE, headline).hint(match wanted.trim_start_matches("linux/") {
            "arm64" => "--binary FILE: a `forge` built with `cargo build --release --target aarch64-unknown-linux-gnu`",
            "amd64" => "--binary FILE: a `forge` built with `cargo build --release --target x86_64-unknown-linux-gnu`",
            _ => "platforms are linux/amd64 and linux/arm64",
        }));
    }
    let blob = store.put_blob(&bytes, true)?;
    let program = store::File { blob, size: bytes.len() as u64, metadata: Metadata::root(0o755) };
    let empty = |mode| -> Result<Node> {
        Ok(Node::Directory(store.put_tree(&Tree { metadata: Metadata::root(mode), entries: BTreeMap::new() })?))
    };
    let mut entries = BTreeMap::new();
    let name = |text: &str| Name::new(text.as_bytes().to_vec()).expect("a plain name");
    for directory in DIRECTORIES {
        entries.insert(name(directory), empty(if directory == "tmp" { 0o1777 } else { 0o755 })?);
    }
    let mut binaries = BTreeMap::new();
    binaries.insert(name("forge"), Node::File(program));
    let binaries = store.put_tree(&Tree { metadata: Metadata::root(0o755), entries: binaries })?;
    entries.insert(name("bin"), Node::Directory(binaries));
    let root = store.put_tree(&Tree { metadata: Metadata::root(0o755), entries })?;
    let formation = Formation {
        name: NAME.to_owned(),
        version: format!("{}-{}", env!("CARGO_PKG_VERSION"), &blob.to_string()[..12]),
        variant: String::new(),
        platform: format!("linux/{architecture}"),
        root,
        launch: Launch {
            entrypoint: vec![b"/bin/forge".to_vec()],
            environment: [(b"FORGE_STORE".to_vec(), b"/forge/store".to_vec())].into(),
            directory: Some(b"/formation".to_vec()),
            ..Launch::default()
        },
    };
    let id = store.put_formation(&formation, &Record::default())?;
    store.set_root(NAME, id)?;
    Ok(id)
}

/// The architecture of a Linux program that needs no other file; else why it is none. elf(5).
fn static_architecture(bytes: &[u8]) -> Result<&'static str, String> {
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let cut = || "it is not a whole ELF file".to_owned();
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it is not a program for Linux of 64 bits".to_owned());
    }
    let architecture = match number(18, 2).ok_or_else(cut)? {
        62 => "amd64",
        183 => "arm64",
        other => return Err(format!("its machine has number {other}")),
    };
    let (start, size, count) =
        (number(32, 8).ok_or_else(cut)?, number(54, 2).ok_or_else(cut)?, number(56, 2).ok_or_else(cut)?);
    for index in 0..count {
        let at = start.checked_add(index * size).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
        const INTERPRETER: u64 = 3;
        if number(at, 4).ok_or_else(cut)? == INTERPRETER {
            return Err("it is linked dynamically".to_owned());
        }
    }
    Ok(architecture)
}

/// The image for a platform, in the engine: what the settings name, else this program's own. What is not there is fetched or loaded.
/// Gives the digest by which the engine keeps it.
pub fn ensure(store: &Store, engine: &Engine, platform: &str, context: &Context) -> Result<String> {
    if let Some(setting) = &context.settings.runner_image {
        return fetched(engine, &setting.value, platform, context);
    }
    let note = noted(engine, context);
    if let Some((path, identity)) = &note
        && let Ok(text) = std::fs::read_to_string(path)
        && let [image, noted_identity] = text.lines().collect::<Vec<_>>()[..]
        && noted_identity == identity
    {
        return Ok(image.to_owned());
    }
    let id = formation(store, None, None)?;
    let image = loaded(store, engine, id, platform, context)?;
    if let Some((path, identity)) = note
        && let Some(directory) = path.parent()
    {
        // Without the note the engine is asked again the next time.
        let _ = std::fs::create_dir_all(directory);
        let _ = std::fs::write(&path, format!("{image}\n{identity}\n"));
    }
    Ok(image)
}

/// Forgets what is noted of an engine: it did not have the image after all.
pub fn forget(engine: &Engine, context: &Context) {
    if let Some((path, _)) = noted(engine, context) {
        let _ = std::fs::remove_file(path);
    }
}

/// Root's engine and an ordinary user's are two.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Where it is noted which image an engine has, and what tells this program from another.
fn noted(engine: &Engine, context: &Context) -> Option<(PathBuf, String)> {
    use std::os::unix::fs::MetadataExt;
    let program = std::env::current_exe().ok()?;
    let file = std::fs::metadata(&program).ok()?;
    let identity = format!("{}:{}:{}:{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    let path = context.state_path().ok()?.join(format!("runner/{}-{}", engine.kind.name(), user()));
    Some((path, identity))
}

fn fetched(engine: &Engine, reference: &str, platform: &str, context: &Context) -> Result<String> {
    let mut found = engine.image(reference)?;
    if found.is_none() {
        if !context.global.quiet {
            say!("     pull runner image {reference} (the first time only)");
        }
        engine.pull(reference, platform, context.global.quiet)?;
        found = engine.image(reference)?;
    }
    match found {
        Some(facts) if facts.platform != platform => {
            let (image, found, wanted) = (reference.to_owned(), facts.platform, platform.to_owned());
            Err(Error::Platform { image, found, wanted }.into())
        }
        Some(facts) => Ok(facts.id),
        None => Err(Failure::new(
            code::NOT_FOUND,
            format!("{} pulled `{reference}` and does not have it", engine.kind.name()),
        )),
    }
}

/// The image of a runner formation in an engine, which takes it in unless it is there.
pub fn loaded(store: &Store, engine: &Engine, id: FormationId, platform: &str, context: &Context) -> Result<String> {
    let image = oci::image(store, id, &options())?;
    let reference = format!("localhost/{}:{}", image.reference.0, image.reference.1);
    let formation = store.formation(id)?;
    if formation.platform != platform {
        let (found, wanted) = (formation.platform, platform.to_owned());
        return Err(Error::Platform { image: reference, found, wanted }.into());
    }
    let mut found = engine.image(&reference)?;
    if found.is_none() {
        if !context.global.quiet {
            say!("     load runner image {reference} into {} (the first time only)", engine.kind.name());
        }
        let file = tempfile::NamedTempFile::new()
            .map_err(|error| Failure::new(code::DISK_FULL, "cannot make a temporary file").cause(error.to_string()))?;
        write_archive(store, &image, &reference, file.as_file())?;
        engine.load(file.path())?;
        found = engine.image(&reference)?;
    }
    let facts = found.ok_or_else(|| {
        Failure::new(code::NOT_FOUND, format!("{} loaded `{reference}` and does not have it", engine.kind.name()))
    })?;
    // Docker names an image by its configuration, or, with containerd's store, by its manifest. Podman packs the manifest anew.
    let ours: Vec<String> = image.contents.iter().map(|content| content.descriptor.digest.to_string()).collect();
    let is_manifest_of_its_own = facts.id != ours[ours.len() - 2] && !ours.contains(&facts.id);
    if is_manifest_of_its_own {
        let failure = Failure::new(
            code::MISMATCH,
            format!("`{reference}` of {} is not the image that forge made", engine.kind.name()),
        );
        let hint = format!("`{} rmi {reference}` removes it, and forge loads its own again", engine.kind.name());
        return Err(failure.cause(format!("its digest is {}, expected {}", facts.id, ours[ours.len() - 2])).hint(hint));
    }
    Ok(facts.id)
}

/// gzip: Docker before 23 reads no zstd.
fn options() -> Options {
    Options { compression: Compression::Gzip(6), remembered: true, ..Options::default() }
}

/// Writes a runner formation as an archive.
pub fn archive(store: &Store, id: FormationId, file: &File) -> Result<String> {
    let image = oci::image(store, id, &options())?;
    let reference = format!("localhost/{}:{}", image.reference.0, image.reference.1);
    write_archive(store, &image, &reference, file)?;
    Ok(reference)
}

/// An archive as `docker save` writes it: Docker before 25 reads no OCI layout, and Podman reads both.
fn write_archive(store: &Store, image: &oci::Image, reference: &str, file: &File) -> Result<()> {
    let failed =
        |error: std::io::Error| Failure::new(code::DISK_FULL, "cannot write the runner image").cause(error.to_string());
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, name, bytes).map_err(failed)
    };
    // Layers, configuration, manifest: the last is not of this form.
    let (config, layers) =
        image.contents[..image.contents.len() - 1].split_last().expect("an image has a configuration");
    let path = |content: &oci::Content| format!("blobs/sha256/{}", content.descriptor.digest.hex());
    for content in layers.iter().chain([config]) {
        let mut bytes = Vec::new();
        content.each(store, &mut |part| bytes.write_all(part))?;
        append(&path(content), &bytes)?;
    }
    let manifest = serde_json::json!([{
        "Config": path(config),
        "RepoTags": [reference],
        "Layers": layers.iter().map(path).collect::<Vec<_>>(),
    }]);
    append("manifest.json", manifest.to_string().as_bytes())?;
    archive.into_inner().and_then(|mut output| output.flush()).map_err(failed)
}
