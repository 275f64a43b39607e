//! `builtin:wheel`: lays a wheel out as a delta, in process: nothing of the wheel is run.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use store::directory::Claim;
use store::{DeltaId, Store};

use crate::Result;
use crate::builtin::{Builtin, Job};
use crate::python::archive::{Archive, Kept, record_line};
use crate::python::layout::{Layout, Places};
use crate::python::scripts::{self, EntryPoint};
use crate::python::{PythonVersion, normalise};

/// Parameters: `wheel` (a blob), `file` (its name), `python` (`3.11`).
pub struct Wheel;

impl Builtin for Wheel {
    fn name(&self) -> &'static str {
        "wheel"
    }

    fn phase(&self) -> &'static str {
        "unpack"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let file: String = job.parameter("file")?;
        let python = PythonVersion::parse(&job.parameter::<String>("python")?)?;
        let blob = job.blob(&job.parameter::<String>("wheel")?)?;
        let reader = job.builder.store.open_blob(blob)?;
        let delta = install(job.builder.store, reader, &file, python, &|| job.builder.check_interrupt())?;
        Ok(Claim::Delta(delta))
    }
}

/// Installs a wheel. `going_on` is asked before every file, and its error ends the work.
pub fn install<R: Read + Seek>(
    store: &Store,
    reader: R,
    file: &str,
    python: PythonVersion,
    going_on: &dyn Fn() -> Result<()>,
) -> Result<DeltaId> {
    let mut archive = Archive::open(reader, file)?;
    let places = Places::debian(python);
    let entry_points = match archive.text(&archive.metadata_path("entry_points.txt"))? {
        Some(text) => scripts::entry_points(&text).map_err(|reason| archive.bad(reason))?,
        None => BTreeMap::new(),
    };
    let mut installation =
        Installation { store, places: &places, entry_points: &entry_points, layout: Layout::default() };
    for (name, executable) in archive.files() {
        going_on()?;
        installation.file(&mut archive, &name, executable)?;
    }
    installation.finish(&archive)
}

struct Installation<'a> {
    store: &'a Store,
    places: &'a Places,
    entry_points: &'a BTreeMap<String, EntryPoint>,
    layout: Layout,
}

impl Installation<'_> {
    /// Puts one file where its scheme wants it.
    fn file<R: Read + Seek>(&mut self, archive: &mut Archive<R>, name: &str, executable: bool) -> Result<()> {
        let (top, rest) = name.split_once('/').unwrap_or((name, ""));
        if top == archive.metadata_directory && REPLACED.contains(&rest) {
            return Ok(());
        }
        if !top.ends_with(".data") || rest.is_empty() {
            let path = format!("{}/{name}", self.places.packages);
            return self.keep(archive, name, path, executable);
        }
        let (scheme, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            _ if rest.is_empty() => Err(archive.bad(format!("`{name}` belongs to no scheme"))),
            "purelib" | "platlib" => {
                let path = format!("{}/{rest}", self.places.packages);
                self.keep(archive, name, path, executable)
            }
            "headers" => {
                let project = archive.metadata_directory.split('-').next().unwrap_or_default();
                let path = format!("{}/{project}/{rest}", self.places.headers);
                self.keep(archive, name, path, executable)
            }
            "data" => {
                let path = self.places.data_path(rest);
                self.keep(archive, name, path, executable)
            }
            "scripts" => self.script(archive, name, rest),
            _ => Err(archive.bad(format!("`{name}` is of an unknown scheme"))),
        }
    }

    fn keep<R: Read + Seek>(
        &mut self,
        archive: &mut Archive<R>,
        name: &str,
        path: String,
        executable: bool,
    ) -> Result<()> {
        let kept = archive.keep(name, executable, self.store)?;
        self.layout.add(path, executable, &kept).map_err(|reason| archive.bad(reason))
    }

    fn script<R: Read + Seek>(&mut self, archive: &mut Archive<R>, name: &str, rest: &str) -> Result<()> {
        if self.entry_points.contains_key(rest) {
            // Some builders put both into a wheel; pip writes the entry point.
            return Ok(());
        }
        let path = format!("{}/{rest}", self.places.scripts);
        if !archive.begins_with(name, scripts::PYTHON_SCRIPT)? {
            return self.keep(archive, name, path, true);
        }
        let script = archive.bytes(name)?.unwrap_or_default();
        let script = scripts::with_interpreter(&script, &self.places.interpreter);
        self.add(archive, path, true, &script)
    }

    /// Adds a file that forge writes itself.
    fn add<R>(&mut self, archive: &Archive<R>, path: String, executable: bool, bytes: &[u8]) -> Result<()> {
        let blob = self.store.put_blob(bytes, executable)?;
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
        let kept = Kept { blob, size: bytes.len() as u64, sha256 };
        self.layout.add(path, executable, &kept).map_err(|reason| archive.bad(reason))
    }

    /// Writes the entry points, INSTALLER and RECORD, and makes the delta.
    fn finish<R>(mut self, archive: &Archive<R>) -> Result<DeltaId> {
        let places = self.places;
        for (name, point) in self.entry_points {
            let script = point.script(&places.interpreter);
            self.add(archive, format!("{}/{name}", places.scripts), true, script.as_bytes())?;
        }
        let metadata = format!("{}/{}", places.packages, archive.metadata_directory);
        if !self.layout.has(&format!("{metadata}/METADATA")) {
            return Err(archive.bad("it has no METADATA"));
        }
        self.add(archive, format!("{metadata}/INSTALLER"), false, b"forge\n")?;
        let record_path = format!("{metadata}/RECORD");
        let mut lines: Vec<String> = self
            .layout
            .recorded()
            .map(|(path, sha256, size)| record_line(&relative(path, &places.packages), Some((sha256, size))))
            .collect();
        lines.push(record_line(&relative(&record_path, &places.packages), None));
        lines.sort();
        self.add(archive, record_path, false, lines.concat().as_bytes())?;
        self.layout.put(self.store, archive.file())
    }
}

/// Files of `.dist-info` that an installer writes itself, and signatures of a RECORD that is no more.
const REPLACED: &[&str] = &["RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"];

/// A path as RECORD has it: relative to the directory that the packages are in.
fn relative(path: &str, packages: &str) -> String {
    if let Some(inside) = path.strip_prefix(packages).and_then(|rest| rest.strip_prefix('/')) {
        return inside.to_owned();
    }
    let (mut to, mut from) = (path.split('/').peekable(), packages.split('/').peekable());
    while to.peek() == from.peek() && to.peek().is_some() {
        to.next();
        from.next();
    }
    from.map(|_| "..").chain(to).collect::<Vec<_>>().join("/")
}

/// Name and version that a wheel's file name begins with, the name normalised.
pub fn name_and_version(file: &str) -> Option<(String, String)> {
    let mut parts = file.strip_suffix(".whl")?.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    (!name.is_empty() && !version.is_empty() && matches!(parts.count(), 3 | 4))
        .then(|| (normalise(name), version.to_owned()))
}

#[cfg(test)]
mod tests;
