//! What can be typed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use building::BuildOptions;
pub use commit::CommitArguments;
pub use hint::hint;
pub use keeping::{GcArguments, PinArguments, VerifyArguments};
pub use peers::{
    CopyArguments, KeyArguments, KeyCommand, PullArguments, PushArguments, PushOptions, RemoteArguments, RemoteCommand,
    ServeArguments,
};
pub use run::{BoundOptions, HabitOptions, NetworkChoice, RunOptions};
pub use runtime::{BundleArguments, CreateArguments, Operation, RuntimeArguments};

pub mod building;
mod commit;
mod hint;
pub mod joblet;
mod keeping;
pub mod parity;
mod peers;
pub mod quick;
mod run;
pub mod runner;
mod runtime;
pub mod test;
pub mod volume;

/// The command that is meant by words of which not all are understood.
pub fn command_of(words: impl Iterator<Item = OsString>) -> Option<String> {
    let commands = Arguments::command();
    let known = |word: &OsStr| commands.get_subcommands().find(|command| word == command.get_name());
    words.into_iter().find_map(|word| known(&word).map(|command| command.get_name().to_owned()))
}

/// Builds a file system and the way to run it from an expression, names it by a digest, and runs it by that digest.
#[derive(Debug, Parser)]
#[command(name = "forge", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
}

/// Arguments of an expression's function, in pairs.
#[derive(Debug, Clone, Default, Args)]
pub struct FunctionArguments {
    /// An argument of the file's function, as an expression
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"], action = clap::ArgAction::Append)]
    pub arg: Vec<String>,
    /// An argument of the file's function, as a string
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"], action = clap::ArgAction::Append)]
    pub argstr: Vec<String>,
}

/// Options that every command takes.
#[derive(Default, Debug, Args)]
pub struct Global {
    /// The store to work with [default: $FORGE_STORE, else $XDG_DATA_HOME/forge/store, else ~/.local/share/forge/store; for root /var/lib/forge/store]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub store: Option<PathBuf>,
    /// Prints a JSON record on stdout instead of text; `forge run` and `forge shell`, whose stdout is the program's, on stderr, as the last line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Says nothing but errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Says more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Shows the whole trace of an evaluation that failed, forge's own library included
    #[arg(long, global = true, help_heading = "Global options")]
    pub show_trace: bool,
    /// Evaluates anew though nothing that is read has changed; keeps nothing for the next time
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_eval_cache: bool,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: Color,
}

/// When to colour.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Builds a runtime expression; prints the formation's id
    Build(BuildArguments),
    /// Runs a formation, by digest, prefix or name, or an expression, which is built first
    Run(RunArguments),
    /// Runs a formation's own test, and says whether it passed
    Test(test::TestArguments),
    /// Opens a shell in a formation; for one command: `forge run FORMATION -- CMD`
    Shell(ShellArguments),
    /// Makes an OCI bundle of a formation, for other runtimes: crun, runc, youki
    Bundle(BundleArguments),
    /// Creates, starts, looks at, kills and deletes containers, as the OCI runtime specification has it
    Runtime(RuntimeArguments),
    /// Makes a formation of what `forge run --writable DIR` kept; prints its id
    Commit(CommitArguments),
    /// Runs a formation on every backend of this host and states every difference; exits with 1 if there is one
    Parity(parity::ParityArguments),
    /// Makes the image in which formations run where there is no Linux, or in a container by choice
    Runner(runner::RunnerArguments),
    /// Evaluates an expression and prints its value
    Eval(EvalArguments),
    /// Evaluates what is typed in, line by line
    Repl(ReplArguments),
    /// Does what Nix's `nix-instantiate` does, with its flags and its words
    NixInstantiate(NixInstantiateArguments),
    /// Reports every mistake of syntax and names at once, without evaluating or building
    #[command(visible_alias = "validate")]
    Check(CheckArguments),
    /// Writes forge.lock: the exact packages that an expression's wishes stand for
    Lock(LockArguments),
    /// Shows what a step printed when it was made
    Log(building::LogArguments),
    /// Says why a step was made or not: the first thing that differs from the nearest earlier build
    Explain(building::ExplainArguments),
    /// Says why something is in a formation: which layer, package and step brought it, and who needs it
    Why(building::WhyArguments),
    /// Draws the steps of a formation, for Graphviz, Mermaid or programs
    Graph(building::GraphArguments),
    /// Lists the formations in the store
    List(ListArguments),
    /// Shows what a formation is and how it wants to be run
    Info(InfoArguments),
    /// Gives a formation another name
    Tag(TagArguments),
    /// Takes names away from formations; `forge gc` then frees what nothing names
    Rm(RmArguments),
    /// Compares two formations, artifacts or directories: settings, then paths; exits with 1 if they differ
    Diff(DiffArguments),
    /// Prints what a formation is made of, as an SPDX document
    Sbom(DocumentArguments),
    /// Prints how a formation was made, as an in-toto statement with SLSA provenance
    Provenance(DocumentArguments),
    /// Packs a formation into a file
    Export(ExportArguments),
    /// Takes a directory, an archive or an image into the store; prints the formation's id
    Import(ImportArguments),
    /// Says what an artifact is and which formation it holds, without unpacking; of a formation, what `info` does
    Inspect(InspectArguments),
    /// Gives formations to a peer: what it has not got is sent
    Push(PushArguments),
    /// Takes a formation from the peers: what is not here is fetched, and everything is checked
    Pull(PullArguments),
    /// Takes a formation from one peer to another
    Copy(CopyArguments),
    /// Offers the store to peers until it is told to end (SIGTERM, Ctrl-C); prints its address
    Serve(ServeArguments),
    /// Says which peers there are, adds and removes them, tests whether they answer
    Remote(RemoteArguments),
    /// Makes and lists keys that sign claims, and those that are trusted
    Key(KeyArguments),
    /// Directories that outlive runs, by name: makes, lists and removes them
    Volume(volume::VolumeArguments),
    /// Frees what no name, no pin and no running command needs
    Gc(GcArguments),
    /// Keeps a formation from `forge gc`, whatever its names stand for; lists what is kept so
    Pin(PinArguments),
    /// Signs a SIF so that Apptainer verifies it
    Sign(SignArguments),
    /// Hashes everything in the store again and names what is damaged; or verifies an artifact's signatures
    Verify(VerifyArguments),
    /// Tests what this host gives: namespaces, limits, mirrors; and says the cure
    Doctor(DoctorArguments),
    /// Shows the settings and where each comes from
    Config(ConfigArguments),
    /// Prints a shell's completion script
    Completions(CompletionsArguments),
}

impl Command {
    /// How it is told what happens, if it was said.
    pub fn log_format(&self) -> Option<building::LogFormat> {
        match self {
            Self::Build(arguments) => arguments.options.log_format,
            Self::Run(arguments) => arguments.target.build.log_format,
            Self::Shell(arguments) => arguments.target.build.log_format,
            Self::Test(arguments) => arguments.target.build.log_format,
            Self::Bundle(arguments) => arguments.target.build.log_format,
            _ => None,
        }
    }
}

/// An expression and what of it is meant.
#[derive(Debug, Clone, Args)]
pub struct ExpressionArguments {
    /// A runtime expression or a runtime.yaml of Joblet (a directory stands for the one in it), or the name of a runtime that comes with forge
    #[arg(value_name = "FILE", default_value = "runtime.expr")]
    pub file: PathBuf,
    /// Which of the file's formations or attributes, for instance `tools.small`
    #[arg(short = 'A', long = "attribute", value_name = "PATH")]
    pub attribute: Option<String>,
    /// Arguments of the file's function.
    #[command(flatten)]
    pub arguments: FunctionArguments,
}

/// `forge build`
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// What to build.
    #[command(flatten)]
    pub expression: ExpressionArguments,
    /// How.
    #[command(flatten)]
    pub options: BuildOptions,
    /// Also names the formation so
    #[arg(short, long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Writes the file that the expression gives (forge.image, forge.fetchurl, a derivation) to this path
    #[arg(short, long, value_name = "FILE", conflicts_with = "tag")]
    pub output: Option<PathBuf>,
    /// Says what would be fetched and made, and does nothing of it; what the lock does not answer is asked for, and not written
    #[arg(short = 'n', long, conflicts_with_all = ["tag", "output", "check", "peer"])]
    pub dry_run: bool,
    /// Makes every step once more elsewhere and compares: another path, core count, order of files, time. Exits with 104 if
    /// something came out otherwise
    #[arg(long)]
    pub check: bool,
    /// Joblet: the name goes to what is built, whatever had it before; as it always does.
    #[arg(long, hide = true)]
    pub force: bool,
    /// Whom it is given to.
    #[command(flatten)]
    pub push: PushOptions,
}

/// What is run, and how: the same for `run` and `shell`.
#[derive(Debug, Default, Clone, Args)]
pub struct Target {
    /// A digest, a prefix of 6 digits or more, a name, an expression's file (./runtime.expr), an artifact's (./x.sif), or an image of a registry (oci://…)
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// Which of the file's formations
    #[arg(short = 'A', long = "attribute", value_name = "PATH")]
    pub attribute: Option<String>,
    /// How an expression is built.
    #[command(flatten)]
    pub build: BuildOptions,
    /// How the run differs.
    #[command(flatten)]
    pub options: RunOptions,
}

/// `forge run`
#[derive(Debug, Default, Args)]
pub struct RunArguments {
    /// What is run, and how.
    #[command(flatten)]
    pub target: Target,
    /// Takes the place of the formation's entrypoint, and of its command too; `--entrypoint ''` takes it away
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Replaces the formation's command; where it has an entrypoint, the arguments of that
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `forge shell`
#[derive(Debug, Args)]
pub struct ShellArguments {
    /// What is run, and how.
    #[command(flatten)]
    pub target: Target,
    /// Enters the directory of a failed step that --keep-failed kept, instead of a formation: the step's name, its derivation, or
    /// the directory
    #[arg(long = "build")]
    pub failed_step: bool,
}

/// `forge eval`
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// An expression's file [default: runtime.expr, unless -E is given]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Evaluates this text
    #[arg(short = 'E', long = "expr", value_name = "EXPR", conflicts_with = "file")]
    pub expression: Option<String>,
    /// Which attribute of the value
    #[arg(short = 'A', long = "attribute", value_name = "PATH")]
    pub attribute: Option<String>,
    /// Arguments of the file's function.
    #[command(flatten)]
    pub arguments: FunctionArguments,
    /// Evaluates the whole value, not only its outermost part
    #[arg(long)]
    pub strict: bool,
    /// Prints a string as it is
    #[arg(long, conflicts_with_all = ["json", "xml"])]
    pub raw: bool,
    /// Prints XML
    #[arg(long, conflicts_with = "json")]
    pub xml: bool,
    /// What can be read.
    #[command(flatten)]
    pub sources: SourceOptions,
}

/// What an evaluation can read.
#[derive(Debug, Clone, Args)]
pub struct SourceOptions {
    /// Where `<NAME>` is looked for, `NAME=DIR` or `DIR`
    #[arg(short = 'I', long = "include", value_name = "PATH")]
    pub include: Vec<String>,
    /// Sees files outside the project, the environment, the clock, and the search path of NIX_PATH
    #[arg(long)]
    pub impure: bool,
}

/// `forge repl`
#[derive(Debug, Args)]
pub struct ReplArguments {
    /// An expression's file, whose attributes are brought into scope
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Brings the attributes of this expression into scope
    #[arg(short = 'E', long = "expr", value_name = "EXPR")]
    pub expression: Option<String>,
    /// Arguments of the file's function.
    #[command(flatten)]
    pub arguments: FunctionArguments,
    /// What can be read.
    #[command(flatten)]
    pub sources: SourceOptions,
}

/// For test suites and scripts that were written for Nix: the same happens when forge is called as `nix-instantiate`, for
/// instance by a symlink. In this mode alone an evaluation sees the environment, the clock, `<path>` and files anywhere, as
/// in Nix. Nothing is written below /nix: store paths are printed and not made, with and without `--read-write-mode`.
#[derive(Debug, Args)]
pub struct NixInstantiateArguments {
    /// What `nix-instantiate` takes: `--eval --strict --json --xml --raw --parse --find-file -E -A --arg --argstr -I --option …`
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// `forge check`
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Expressions' files, or formations of the store
    #[arg(value_name = "FILE", default_value = "runtime.expr")]
    pub files: Vec<PathBuf>,
    /// Refuses files that look like private keys or tokens, and that the expressions name
    #[arg(long)]
    pub strict: bool,
}

/// `forge lock`
#[derive(Debug, Args)]
pub struct LockArguments {
    /// What to lock.
    #[command(flatten)]
    pub expression: ExpressionArguments,
    /// Asks again: for everything, or for what has one of these packages (`--update=NAME`); with -A, the answers of the file's other formations stay
    #[arg(long, value_name = "PACKAGE", num_args = 0.., require_equals = true, value_delimiter = ',')]
    pub update: Option<Vec<String>>,
    /// Refuses to change forge.lock; fails if it does not answer everything
    #[arg(long, conflicts_with = "update")]
    pub locked: bool,
}

/// `forge list`
#[derive(Debug, Args)]
pub struct ListArguments {}

/// `forge info`
#[derive(Debug, Args)]
pub struct InfoArguments {
    /// A digest, prefix or name
    #[arg(value_name = "FORMATION")]
    pub formation: String,
}

/// `forge tag`
#[derive(Debug, Args)]
pub struct TagArguments {
    /// A digest, prefix or name
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// The new name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `forge rm`
#[derive(Debug, Args)]
pub struct RmArguments {
    /// Names, or digests of formations that lose all their names
    #[arg(value_name = "FORMATION", required = true)]
    pub formations: Vec<String>,
}

/// `forge diff`
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// A digest, prefix or name; or the path of an artifact or directory
    #[arg(value_name = "A")]
    pub before: String,
    /// What it is compared with
    #[arg(value_name = "B")]
    pub after: String,
}

/// `forge sbom`, `forge provenance`
#[derive(Debug, Args)]
pub struct DocumentArguments {
    /// A digest, prefix or name
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// Where to; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `forge export`
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Digests, prefixes or names: several, of several platforms, for oci and oci-layout only
    #[arg(value_name = "FORMATION", required = true)]
    pub formations: Vec<String>,
    /// Into what: oci (or oci-archive) is a file, oci-layout a directory
    #[arg(long, value_name = "FORMAT", value_parser = ["squashfs", "sif", "tar", "oci", "oci-archive", "oci-layout"], default_value = "squashfs")]
    pub format: String,
    /// Where to; `-` is stdout [default: NAME-VERSION-VARIANT-linux-ARCH.SUFFIX]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How its blocks or layers are compressed: `zstd` or `gzip`, with a level after a colon. Shows in its bytes
    #[arg(long, value_name = "METHOD[:LEVEL]", default_value = "zstd:3")]
    pub compression: store::format::Compression,
    /// An earlier artifact whose compressed blocks are copied. What this store exported and is still in its place is found by itself
    #[arg(long, value_name = "ARTIFACT")]
    pub from: Vec<PathBuf>,
    /// Compresses everything anew
    #[arg(long, conflicts_with = "from")]
    pub fresh: bool,
    /// Also prints the file's SHA-256, which takes a while; BLAKE3 is taken as it is written
    #[arg(long)]
    pub sha256: bool,
    /// Signs it with this secret key, as `forge sign` does; SIF only
    #[arg(long, value_name = "KEY")]
    pub sign: Option<PathBuf>,
    /// Of the key.
    #[command(flatten)]
    pub passphrase: PassphraseArguments,
    /// Replaces an existing file
    #[arg(short, long)]
    pub force: bool,
    /// Documents that go along with an OCI image, as referrers
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub attach: Vec<AttachChoice>,
}

/// Documents that go along with an OCI image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttachChoice {
    /// What it is made of: SPDX.
    Sbom,
    /// How it was made: SLSA provenance.
    Provenance,
}

/// `forge import`
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// A directory, a tar (compressed or not), a squashfs or SIF, an OCI layout or archive, an image of a registry (oci://HOST/REPOSITORY:TAG); `-` is a tar on stdin; the word `joblet` before a runtime.yaml
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// After the word `joblet`: a runtime.yaml, of which the expression that does the same is printed
    #[arg(value_name = "RUNTIME.YAML")]
    pub description: Option<PathBuf>,
    /// What the formation is called [default: what the artifact says, else what its file is called]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The formation's version
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Which of several of this name and version
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// For which platform, for instance linux/arm64; of an OCI image for several platforms, which one
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Of an OCI layout or archive with several images, which one: its name, tag or digest
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Of a directory, keeps owners, modes and attributes; else everything is root's, with modes 0644 and 0755
    #[arg(long)]
    pub keep: bool,
    /// Refuses what holds more than this, for instance 100G [default: 64G, or twenty times the artifact]
    #[arg(long, value_name = "BYTES")]
    pub max_size: Option<String>,
    /// Also names the formation so
    #[arg(short, long, value_name = "NAME")]
    pub tag: Option<String>,
}

/// `forge inspect`
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// An artifact's file or directory, an image of a registry (oci://…), or a digest, prefix or name
    #[arg(value_name = "FILE|FORMATION")]
    pub subject: String,
    /// Of an OCI image for several platforms, which one
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Also says the BLAKE3 and SHA-256 digests of the file, which is read for that
    #[arg(long)]
    pub digest: bool,
    /// Also reads everything in it, and compares it with the formation that it claims to be; the content is in the store then
    #[arg(long)]
    pub verify: bool,
}

/// Where the passphrase of a key comes from.
#[derive(Debug, Clone, Args)]
pub struct PassphraseArguments {
    /// Reads the key's passphrase from this file descriptor, up to the end of its first line [default: asks on the terminal]
    #[arg(long, value_name = "N")]
    pub passphrase_fd: Option<u32>,
    /// Takes the key's passphrase from this variable
    #[arg(long, value_name = "NAME", conflicts_with = "passphrase_fd")]
    pub passphrase_env: Option<String>,
}

/// `forge sign`
#[derive(Debug, Args)]
pub struct SignArguments {
    /// A SIF; the signature is put at its end
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A secret key: OpenPGP (armoured or binary), or ed25519 in PEM
    #[arg(short, long, value_name = "KEY")]
    pub key: PathBuf,
    /// Its passphrase.
    #[command(flatten)]
    pub passphrase: PassphraseArguments,
}

/// `forge doctor`
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Also asks the mirrors and indexes whether they answer
    #[arg(long)]
    pub network: bool,
}

/// `forge config`
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// What to do
    #[arg(value_name = "ACTION", value_parser = ["show"], default_value = "show")]
    pub action: String,
    /// Says where each setting comes from
    #[arg(long)]
    pub origin: bool,
}

/// `forge completions`
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
