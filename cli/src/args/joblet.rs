//! Flags of Joblet's `job run` that forge has under other names or in other units: they become forge's own before anything looks at them.
//! What is uploaded stays as it was named, for whoever looks at the files.

use std::path::PathBuf;

use clap::Args;

use super::{Arguments, Command, RunOptions};

/// Where Joblet puts what is uploaded, and starts the command.
pub const WORK: &str = "/work";

/// What Joblet's users type.
#[derive(Debug, Clone, Default, Args)]
pub struct JobletOptions {
    /// Joblet: bound on memory, in MB
    #[arg(long, value_name = "MB", conflicts_with = "memory", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Of Joblet")]
    pub max_memory: Option<u32>,
    /// Joblet: bound on processors, in hundredths of one
    #[arg(long, value_name = "PERCENT", conflicts_with = "cpus", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Of Joblet")]
    pub max_cpu: Option<u32>,
    /// Joblet: bytes a second read from each disk, and as many written
    #[arg(long, value_name = "BYTES", conflicts_with = "io", help_heading = "Of Joblet")]
    pub max_iobps: Option<String>,
    /// Joblet: shows a file in /work, where the command starts then; the file itself is read-only
    #[arg(long, value_name = "FILE", help_heading = "Of Joblet")]
    pub upload: Vec<PathBuf>,
    /// Joblet: the same for everything in a directory
    #[arg(long, value_name = "DIR", help_heading = "Of Joblet")]
    pub upload_dir: Vec<PathBuf>,
    /// Joblet: sets a variable; of no variable anything is written down
    #[arg(short = 's', long, value_name = "NAME[=VALUE]", help_heading = "Of Joblet")]
    pub secret_env: Vec<String>,
}

impl Arguments {
    /// Joblet's flags as forge's own.
    pub fn settled(mut self) -> Self {
        match &mut self.command {
            Command::Run(run) => run.target.options.settle(),
            Command::Shell(shell) => shell.target.options.settle(),
            Command::Test(test) => test.target.options.settle(),
            Command::Bundle(bundle) => bundle.target.options.settle(),
            _ => {}
        }
        self
    }
}

impl RunOptions {
    fn settle(&mut self) {
        let joblet = &mut self.habits.joblet;
        let (max_memory, max_cpu, max_iobps) =
            (joblet.max_memory.take(), joblet.max_cpu.take(), joblet.max_iobps.take());
        let secret_env = std::mem::take(&mut joblet.secret_env);
        if !joblet.upload.is_empty() || !joblet.upload_dir.is_empty() {
            self.workdir.get_or_insert_with(|| WORK.into());
        }
        let bounds = &mut self.bounds;
        bounds.memory = max_memory.map(|megabytes| format!("{megabytes}M")).or(bounds.memory.take());
        bounds.cpus = max_cpu.map(|percent| format!("{}.{:02}", percent / 100, percent % 100)).or(bounds.cpus.take());
        bounds.io = max_iobps.or(bounds.io.take());
        self.env.extend(secret_env);
    }
}
