//! `forge build`: evaluate, build what is missing, name it, print its id.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use builder::check::{Checked, Differing};
use builder::{Builder, Built};
use serde_json::json;
use store::directory::Claim;
use store::nix::info::PathInfo;
use store::peer::Realisation;
use store::{FormationId, Node, Plan, Store};

use crate::args::{BuildArguments, BuildOptions, ExpressionArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::names::root_name;
use crate::plan::{Expression, LockMode};
use crate::progress::{Progress, Style};
use crate::pushing::Pusher;
use crate::words::say;
use crate::workshop::Workshop;
use crate::{interrupt, secrets};

/// `forge build`
pub fn run(arguments: &BuildArguments, context: &Context) -> Result<ExitCode> {
    if arguments.dry_run {
        return super::dry_run::run(arguments, context);
    }
    let tag = arguments.tag.as_deref().map(root_name).transpose()?;
    let store = context.store()?;
    let pusher = Pusher::of(&arguments.push, context)?;
    let build = |made: Option<&(dyn Fn(Realisation) + Sync)>| {
        build_and(&store, &arguments.expression, &arguments.options, context, arguments.check, made)
    };
    let (came, pushed) = match &pusher {
        None => (build(None)?, None),
        Some(pusher) => {
            let (came, pushed) = pusher.beside(&store, context, &build)?;
            (came, Some(pushed))
        }
    };
    let done = match came {
        Came::Formation(done) if arguments.output.is_some() => {
            let failure = Failure::new(code::USAGE, "--output is for an expression that gives a file");
            return Err(failure
                .hint(format!("this one gives a formation: `forge export {} -o FILE` packs it", done.plan.goal.name)));
        }
        Came::Formation(done) => *done,
        Came::Derivation(_) if arguments.tag.is_some() => {
            return Err(Failure::new(code::USAGE, "--tag names a formation, and the expression gives a derivation"));
        }
        Came::Derivation(plain) => {
            if let Some(path) = &arguments.output {
                plain.write(&store, path)?;
            }
            return plain.show(context);
        }
    };
    if let Some(tag) = &tag {
        store.set_root(tag, done.id)?;
    }
    let receipt = match (&pusher, pushed) {
        (Some(pusher), Some(pushed)) => Some(pusher.finish(&store, done.id, &done.plan.goal.name, pushed, context)),
        _ => None,
    };
    if context.global.json {
        let mut record = done.to_json(&store)?;
        if let Some(Ok(receipt)) = &receipt {
            record["push"] = receipt.clone();
        }
        super::print_json(&record)?;
    } else {
        super::print(&format!("{}\n", done.id))?;
    }
    // The build is done and said, whatever its peer made of it.
    if let Some(Err(failure)) = receipt {
        return Err(failure);
    }
    conclude(done.checked.as_ref(), context)
}

/// A finished build.
pub struct Done {
    /// The formation.
    pub id: FormationId,
    plan: Plan,
    built: Built,
    evaluate: f64,
    realise: f64,
    progress: Progress,
    checked: Option<Checked>,
}

/// Builds an expression and roots the formation under its name.
pub fn build(
    store: &Store,
    expression: &ExpressionArguments,
    options: &BuildOptions,
    context: &Context,
) -> Result<Done> {
    match build_and(store, expression, options, context, false, None)? {
        Came::Formation(done) => Ok(*done),
        Came::Derivation(plain) => {
            let headline = format!("`{}` is a derivation and no formation", plain.name);
            Err(Failure::new(code::USAGE, headline)
                .hint("forge.formation { name = \"…\"; layers = [ (forge.closure drv) ]; } makes one of it"))
        }
    }
}

/// What came of an expression.
enum Came {
    Formation(Box<Done>),
    Derivation(Box<Plain>),
}

/// A finished build of a derivation without a formation around it.
struct Plain {
    name: String,
    output: builder::Output,
    checked: Option<Checked>,
}

impl Plain {
    /// Writes the file that came out; half of it is never seen under its name.
    fn write(&self, store: &Store, path: &Path) -> Result<()> {
        let Node::File(file) = &self.output.node else {
            let failure = Failure::new(code::USAGE, format!("--output: `{}` gives no file", self.name));
            return Err(failure.hint("forge.formation { name = \"…\"; layers = [ (forge.closure drv) ]; } and `forge export` write a directory"));
        };
        let failed = |error: std::io::Error| {
            let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            let code = if full { code::DISK_FULL } else { code::REFUSED };
            Failure::new(code, format!("cannot write `{}`", path.display())).cause(error.to_string())
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut written = tempfile::Builder::new().prefix(".forge-build").tempfile_in(directory).map_err(failed)?;
        std::io::copy(&mut store.open_blob(file.blob)?, written.as_file_mut()).map_err(failed)?;
        let mode = if file.metadata.mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        written.as_file().set_permissions(mode).map_err(failed)?;
        written.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Prints the path and what lies there: a tree's id, a file's, or where a link leads.
    fn show(&self, context: &Context) -> Result<ExitCode> {
        let (kind, id) = match &self.output.node {
            Node::Directory(id) => ("tree", id.to_string()),
            Node::File(file) => ("blob", file.blob.to_string()),
            Node::Symlink { target, .. } => ("symlink", String::from_utf8_lossy(target).into_owned()),
            Node::Fifo(_) | Node::Device { .. } => ("special", String::new()),
        };
        let path = self.output.path.as_ref().map_or_else(|| self.name.clone(), ToString::to_string);
        if context.global.json {
            let info = self.output.info.as_ref();
            let references = |info: &PathInfo| info.references.iter().map(ToString::to_string).collect::<Vec<_>>();
            super::print_json(&json!({
                "schema": 1,
                "name": self.name,
                "derivation": self.output.derivation.as_str(),
                "path": self.output.path.as_ref().map(ToString::to_string),
                "kind": kind,
                "id": id,
                "delta": match self.output.claim { Claim::Delta(id) => Some(id.to_string()), Claim::Blob(_) => None },
                "nar_hash": info.map(|info| format!("sha256:{}", store::digest::to_hex(&info.nar_hash))),
                "nar_size": info.map(|info| info.nar_size),
                "references": info.map(references),
                "made": self.output.made,
                "check": self.checked.as_ref().map(check_record),
            }))?;
        } else {
            super::print(&format!("{path} {id}\n"))?;
        }
        conclude(self.checked.as_ref(), context)
    }
}

/// The exit code, and words, for what came of making everything again.
fn conclude(checked: Option<&Checked>, context: &Context) -> Result<ExitCode> {
    match checked {
        Some(checked) if !checked.differing.is_empty() => Err(not_deterministic(checked)),
        Some(checked) => {
            if !context.global.quiet {
                say!("    check {} steps made again elsewhere: no difference", checked.steps);
            }
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The same; makes everything again elsewhere and compares, if `check`.
fn build_and(
    store: &Store,
    expression: &ExpressionArguments,
    options: &BuildOptions,
    context: &Context,
    check: bool,
    made: Option<&(dyn Fn(Realisation) + Sync)>,
) -> Result<Came> {
    interrupt::watch(&context.interrupt);
    let progress = Progress::new(Style::of(options.log_format, context));
    let machine = context.machine();
    let workshop = Workshop::new(store, &machine, &progress, context)?;
    let builder = Builder { made, ..workshop.builder(options, context) };
    let result = (|| {
        let started = Instant::now();
        let mode = if options.locked { LockMode::Locked } else { LockMode::Add };
        let mut opened = Expression::open(expression, context)?;
        let plan = opened.plan(&mode, &mut || Ok(&builder))?;
        let evaluate = started.elapsed().as_secs_f64();
        if options.strict {
            secrets::refuse(&secrets::in_plan(&plan)?)?;
        }
        let started = Instant::now();
        let check = |plan: &Plan| {
            let goals = plan.goal.layers.iter().map(|layer| (&layer.derivation, layer.output.as_str()));
            check.then(|| builder::check::check(&builder, plan, &goals.collect::<Vec<_>>())).transpose()
        };
        if plan.goal.plain {
            let output = builder::realise_plain(&builder, &plan)?;
            let checked = check(&plan)?;
            return Ok(Err(Plain { name: plan.goal.name, output, checked }));
        }
        let built = builder::realise(&builder, &plan)?;
        if options.strict {
            secrets::refuse(&secrets::in_formation(store, built.formation)?)?;
        }
        if let Some(description) = opened.description.take() {
            store.describe(built.formation, description)?;
        }
        let (name, version) = (&plan.goal.name, &plan.goal.version);
        // What was built under another version keeps its name with that version.
        let versioned = store::directory::versioned::is_version(version).then(|| format!("{name}@{version}"));
        let names: Vec<&str> = std::iter::once(name.as_str()).chain(versioned.as_deref()).collect();
        store.set_roots(&names, built.formation)?;
        let realise = started.elapsed().as_secs_f64();
        // What was taken in before has been told before.
        if !built.made.is_empty() {
            secrets::warn(&secrets::in_plan(&plan)?, context);
        }
        let checked = check(&plan)?;
        Ok::<_, Failure>(Ok((plan, built, evaluate, realise, checked)))
    })();
    progress.finish();
    Ok(match result? {
        Ok((plan, built, evaluate, realise, checked)) => {
            let id = built.formation;
            Came::Formation(Box::new(Done { id, plan, built, evaluate, realise, progress, checked }))
        }
        Err(plain) => Came::Derivation(Box::new(plain)),
    })
}

impl Done {
    fn to_json(&self, store: &Store) -> Result<serde_json::Value> {
        let record = store.record(self.id)?;
        let goal = &self.plan.goal;
        let phases = self.progress.phases();
        let phase = |(name, (count, took)): (&&str, &(usize, std::time::Duration))| {
            ((*name).to_owned(), json!({ "count": count, "seconds": took.as_secs_f64() }))
        };
        if record.layers.len() != self.built.layers.len() {
            return Err(Failure::new(code::DAMAGED, format!("the record of formation {} is damaged", self.id)));
        }
        Ok(json!({
            "schema": 1,
            "id": self.id.to_string(),
            "name": goal.name,
            "version": goal.version,
            "platform": goal.platform,
            "layers": record.layers,
            "made": self.built.made,
            "check": self.checked.as_ref().map(check_record),
            "seconds": {
                "evaluate_and_lock": self.evaluate,
                "build": self.realise,
                "phases": phases.iter().map(phase).collect::<serde_json::Map<_, _>>(),
            },
        }))
    }
}

/// What came out otherwise, file by file with its likely cause.
fn not_deterministic(checked: &Checked) -> Failure {
    let steps: std::collections::BTreeSet<_> =
        checked.differing.iter().map(|differing| &differing.derivation).collect();
    let headline = format!("{} of {} steps gave something else when they were made again", steps.len(), checked.steps);
    let mut text = String::new();
    for Differing { name, output, files, .. } in &checked.differing {
        let output = if output == "out" { String::new() } else { format!(" ({output})") };
        let _ = writeln!(text, "{name}{output}");
        for file in files.iter().take(MOST_SHOWN) {
            let _ = writeln!(
                text,
                "  /{}  {}: {}",
                String::from_utf8_lossy(&file.path),
                file.aspects.join(", "),
                file.cause.words()
            );
            if let Some((before, after)) = &file.shown {
                let _ = writeln!(text, "    - {before}\n    + {after}");
            }
        }
        if files.len() > MOST_SHOWN {
            let _ = writeln!(text, "  and {} more", files.len() - MOST_SHOWN);
        }
    }
    Failure::new(code::NOT_DETERMINISTIC, headline).detail(text.trim_end())
}

/// So many differences of one step are shown; `--json` has them all.
const MOST_SHOWN: usize = 40;

fn check_record(checked: &Checked) -> serde_json::Value {
    let file = |file: &builder::check::FileDifference| {
        json!({
            "path": String::from_utf8_lossy(&file.path),
            "aspects": file.aspects,
            "cause": file.cause.word(),
            "before": file.shown.as_ref().map(|(before, _)| before),
            "after": file.shown.as_ref().map(|(_, after)| after),
        })
    };
    let differing = |differing: &Differing| {
        json!({
            "derivation": differing.derivation.as_str(),
            "name": differing.name,
            "output": differing.output,
            "files": differing.files.iter().map(file).collect::<Vec<_>>(),
        })
    };
    json!({ "steps": checked.steps, "differing": checked.differing.iter().map(differing).collect::<Vec<_>>() })
}
