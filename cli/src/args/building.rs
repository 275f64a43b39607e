//! What can be typed about building, and about what was built.

use clap::{Args, ValueEnum};

/// How building goes about.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildOptions {
    /// Refuses to change forge.lock
    #[arg(long)]
    pub locked: bool,
    /// Refuses files that look like private keys or tokens, in sources and in layers
    #[arg(long)]
    pub strict: bool,
    /// How many steps run at a time [default: as many as there are processors]; fewer where memory is short
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// How many processors a Nix derivation is told that it may use (NIX_BUILD_CORES) [default: all]; a step of
    /// `forge.run` finds the same environment everywhere, and as many as there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cores: Option<u32>,
    /// Goes on with what does not need a step that failed
    #[arg(short, long)]
    pub keep_going: bool,
    /// Keeps the directory of a failed step; `forge shell --build STEP` enters it
    #[arg(long)]
    pub keep_failed: bool,
    /// How it is told what happens [default: bars on a terminal, lines elsewhere and in CI]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How it is told what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// What runs, how long, and what is left.
    Bars,
    /// A line for each step that is done.
    Lines,
    /// A JSON object for each thing that happens, a line each.
    Json,
}

/// `forge log`
#[derive(Debug, Args)]
pub struct LogArguments {
    /// A step: its name, its derivation's path, or the first digits of its hash; or a formation, for all its steps
    #[arg(value_name = "STEP")]
    pub step: String,
}

/// `forge explain`
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// A step: its name, its derivation's path, or the first digits of its hash; or a formation, for all its steps
    #[arg(value_name = "STEP")]
    pub step: String,
    /// Says everything that differs, and not only the first thing
    #[arg(long)]
    pub all: bool,
}

/// `forge why`
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// A formation
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// What is in it: a package's name, a file's path, a step's name, or a store path
    #[arg(value_name = "THING")]
    pub thing: String,
}

/// `forge graph`
#[derive(Debug, Args)]
pub struct GraphArguments {
    /// A formation
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "dot")]
    pub format: GraphFormat,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// For programs.
    Json,
}
