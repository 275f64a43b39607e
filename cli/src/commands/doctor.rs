//! `forge doctor`: what this host gives, and the cure for what it does not.

use builder::Builder;
use builder::fetch::Place;

use crate::args::{BuildOptions, DoctorArguments};
use crate::context::Context;
use crate::error::{Result, code};
use crate::exit::ExitCode;
use crate::progress::{Progress, Style};
use crate::render;
use crate::workshop::Workshop;

/// One thing that was tested.
struct Check {
    name: String,
    good: bool,
    detail: String,
    cure: Option<String>,
}

impl Check {
    fn new(name: &str, good: bool, detail: impl Into<String>, cure: Option<&str>) -> Self {
        let cure = cure.filter(|_| !good).map(str::to_owned);
        Self { name: name.to_owned(), good, detail: detail.into(), cure }
    }
}

/// `forge doctor`
pub fn run(arguments: &DoctorArguments, context: &Context) -> Result<ExitCode> {
    let mut checks: Vec<Check> = executor::backend::native::check::check()
        .into_iter()
        .map(|capability| Check {
            name: capability.name.to_owned(),
            good: capability.available,
            detail: capability.detail,
            cure: capability.cure.filter(|_| !capability.available),
        })
        .collect();
    checks.extend(engines(context));
    checks.extend(store(context));
    checks.extend(configuration(context));
    if arguments.network {
        checks.extend(network(context)?);
    }
    let bad = checks.iter().filter(|check| !check.good).count();
    if context.global.json {
        let record = |check: &Check| serde_json::json!({ "name": check.name, "good": check.good, "detail": check.detail, "cure": check.cure });
        let checks: Vec<_> = checks.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "bad": bad, "checks": checks }))?;
    } else {
        let mut text = String::new();
        for check in &checks {
            let detail = check.detail.replace('\n', " ");
            text.push_str(&format!("{:<4} {:<24} {detail}\n", if check.good { "ok" } else { "no" }, check.name));
            if let Some(cure) = &check.cure {
                text.push_str(&format!("     {:<24} hint: {cure}\n", ""));
            }
        }
        super::print(&text)?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::NEGATIVE) })
}

/// Docker and Podman: what else could run a formation here. Neither is needed.
fn engines(context: &Context) -> Vec<Check> {
    let answers = |socket: &str| std::os::unix::net::UnixStream::connect(socket).is_ok();
    let podman = match context.program("podman") {
        Some(path) => path.display().to_string(),
        None => "not found: not needed".to_owned(),
    };
    let docker = match (context.program("docker"), answers("/var/run/docker.sock")) {
        (Some(path), true) => format!("{}, and its daemon answers", path.display()),
        (Some(path), false) => format!("{}, and no daemon answers this user: not needed", path.display()),
        (None, _) => "not found: not needed".to_owned(),
    };
    vec![Check::new("Docker", true, docker, None), Check::new("Podman", true, podman, None)]
}

fn store(context: &Context) -> Vec<Check> {
    let cure = Some("--store DIR or FORGE_STORE names a directory that you can write to");
    let opened = context.store_path().and_then(|setting| Ok((context.store()?, setting)));
    let (store, setting) = match opened {
        Ok(opened) => opened,
        Err(failure) => return vec![Check::new("store", false, failure.render(false, false).replace('\n', " "), cure)],
    };
    let mut checks = vec![Check::new("store", true, format!("{} ({})", store.path().display(), setting.origin), cure)];
    if let Ok(space) = rustix::fs::statvfs(store.path()) {
        let free = space.f_bavail * space.f_frsize;
        let cure = Some("`forge gc` frees what nothing names; --store DIR keeps the store on another disk");
        checks.push(Check::new("disk", free > 2 << 30, format!("{} free", render::size(free)), cure));
    }
    checks
}

/// Where packages would come from.
fn configuration(context: &Context) -> Vec<Check> {
    let machine = context.machine();
    let debian = match builder::debian::sources::of_suite(&machine, "bookworm") {
        Ok(sources) => {
            let mut bases: Vec<String> = sources.iter().map(|source| builder::fetch::redact(&source.base)).collect();
            bases.dedup();
            Check::new("Debian mirrors", true, bases.join(" "), None)
        }
        Err(error) => {
            let cure = "set FORGE_DEBIAN_MIRROR to a mirror's address (…/debian)";
            Check::new("Debian mirrors", false, error.to_string(), Some(cure))
        }
    };
    let python = match builder::python::index::configured(&machine) {
        Ok(indexes) => match indexes.default {
            Some(index) => Check::new("Python index", true, builder::fetch::redact(&index), None),
            None => Check::new(
                "Python index",
                true,
                "none configured: pip's own default is asked for when it is needed",
                None,
            ),
        },
        Err(error) => Check::new(
            "Python index",
            false,
            error.to_string(),
            Some("set FORGE_PYTHON_INDEX to an index's address (…/simple)"),
        ),
    };
    vec![debian, python]
}

/// Whether mirrors and index answer.
fn network(context: &Context) -> Result<Vec<Check>> {
    let store = context.store()?;
    let (machine, progress) = (context.machine(), Progress::new(Style::Quiet));
    let workshop = Workshop::new(&store, &machine, &progress, context)?;
    let builder = workshop.builder(&BuildOptions::default(), context);
    let mut places = Vec::new();
    for source in builder::debian::sources::of_suite(&machine, "bookworm").unwrap_or_default() {
        let suite = source.suite.clone().unwrap_or_else(|| "bookworm".to_owned());
        places.push((format!("answers: {suite}"), source.place(&format!("dists/{suite}/InRelease"))));
    }
    if let Ok(Some(index)) = builder::python::index::configured(&machine).map(|indexes| indexes.default) {
        places.push(("answers: Python".to_owned(), Place::new(format!("{}/pip/", index.trim_end_matches('/')))));
    }
    Ok(places.iter().map(|(name, place)| answers(&builder, name, place)).collect())
}

fn answers(builder: &Builder<'_>, name: &str, place: &Place) -> Check {
    let shown = builder::fetch::redact(&place.url);
    let started = std::time::Instant::now();
    match builder.fetcher.document(builder, place, None) {
        Ok(_) => Check::new(name, true, format!("{shown} in {:.1} s", started.elapsed().as_secs_f64()), None),
        Err(builder::Error::Fetch { tried, .. }) => {
            let answer = tried.into_iter().map(|(_, answer)| answer).next().unwrap_or_default();
            let cure = "see the machine's apt sources, proxies (https_proxy) and certificates (SSL_CERT_FILE)";
            Check::new(name, false, format!("{shown}: {answer}"), Some(cure))
        }
        Err(error) => Check::new(name, false, format!("{shown}: {error}"), None),
    }
}
