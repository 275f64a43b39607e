//! `forge build`: evaluate, build what is missing, name it, print its id.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use builder::{Builder, Built, Machine};
use serde_json::json;
use store::{FormationId, Plan, Store};

use crate::args::{BuildArguments, BuildOptions, ExpressionArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::interrupt;
use crate::plan::{Expression, LockMode};
use crate::progress::{Progress, Style};

/// `forge build`
pub fn run(arguments: &BuildArguments, context: &Context) -> Result<ExitCode> {
    if let Some(tag) = &arguments.tag {
        super::tag::check_name(tag)?;
    }
    let store = context.store()?;
    let done = build(&store, &arguments.expression, &arguments.options, context)?;
    if let Some(tag) = &arguments.tag {
        store.set_root(tag, done.id)?;
    }
    if context.global.json {
        super::print_json(&done.to_json(&store)?)?;
    } else {
        super::print(&format!("{}\n", done.id))?;
    }
    Ok(ExitCode::SUCCESS)
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
}

/// Builds an expression and roots the formation under its name.
pub fn build(
    store: &Store,
    expression: &ExpressionArguments,
    options: &BuildOptions,
    context: &Context,
) -> Result<Done> {
    interrupt::watch(&context.interrupt);
    let progress = Progress::new(match (context.global.quiet, context.bars()) {
        (true, _) => Style::Quiet,
        (false, true) => Style::Bars,
        (false, false) => Style::Lines,
    });
    let machine = context.machine();
    let workshop = Workshop::new(store, &machine, &progress, context)?;
    let builder = workshop.builder(options, context);
    let result = (|| {
        let started = Instant::now();
        let mode = if options.locked { LockMode::Locked } else { LockMode::Add };
        let plan = Expression::open(expression, context)?.plan(&mode, &mut || Ok(&builder))?;
        let evaluate = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let built = builder::realise(&builder, &plan)?;
        store.set_root(&plan.goal.name, built.formation)?;
        Ok::<_, Failure>((plan, built, evaluate, started.elapsed().as_secs_f64()))
    })();
    progress.finish();
    let (plan, built, evaluate, realise) = result?;
    Ok(Done { id: built.formation, plan, built, evaluate, realise, progress })
}

/// What a builder borrows, kept in one place.
pub struct Workshop<'a> {
    store: &'a Store,
    machine: &'a Machine,
    progress: &'a Progress,
    fetcher: builder::fetch::Fetcher,
    context: &'a Context,
}

impl<'a> Workshop<'a> {
    /// Prepares for building.
    pub fn new(store: &'a Store, machine: &'a Machine, progress: &'a Progress, context: &'a Context) -> Result<Self> {
        Ok(Self { store, machine, progress, fetcher: builder::fetch::Fetcher::new(machine)?, context })
    }

    /// A builder with these options.
    pub fn builder(&'a self, options: &BuildOptions, context: &Context) -> Builder<'a> {
        Builder {
            store: self.store,
            backend: &self.context.backend,
            machine: self.machine,
            reporter: self.progress,
            fetcher: &self.fetcher,
            jobs: context.jobs(options.jobs),
            keep_failed: options.keep_failed,
            interrupt: Arc::clone(&context.interrupt),
        }
    }
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
            "seconds": {
                "evaluate_and_lock": self.evaluate,
                "build": self.realise,
                "phases": phases.iter().map(phase).collect::<serde_json::Map<_, _>>(),
            },
        }))
    }
}
