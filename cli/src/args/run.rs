//! How a run differs from what its formation says: the letters are Docker's and Apptainer's where both mean the same by them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::joblet::JobletOptions;
use super::runner::WhereOptions;

/// How a run differs from what the formation says.
#[derive(Debug, Clone, Default, Args)]
pub struct RunOptions {
    /// Shows a file or directory of the host inside, `SOURCE[:TARGET[:ro]]`
    #[arg(short = 'B', long, value_name = "BIND")]
    pub bind: Vec<String>,
    /// The same, as Docker writes it: `SOURCE:TARGET[:ro]`. A name without a slash is a volume, a directory of this user that outlives the run, and is made if it is not there; `NAME` alone is at /volumes/NAME
    #[arg(short = 'v', long, value_name = "BIND")]
    pub volume: Vec<String>,
    /// The same in words: `type=bind,source=DIR,target=DIR[,readonly]`, or `type=tmpfs,target=DIR[,tmpfs-size=BYTES]`
    #[arg(long, value_name = "WORDS")]
    pub mount: Vec<String>,
    /// An empty directory in memory, `DIR[:size=BYTES,mode=OCTAL]`
    #[arg(long, value_name = "DIR")]
    pub tmpfs: Vec<String>,
    /// A device of the host, or a directory of devices, `SOURCE[:TARGET]`
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Devices of so many graphics processors, or of `all`; their libraries are the formation's own
    #[arg(long, visible_alias = "gpus", value_name = "COUNT")]
    pub gpu: Option<String>,
    /// Sets a variable, `NAME=VALUE`; `NAME` alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Sets variables from a file, a line each; `--env` goes before it
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// What of the network the program sees
    #[arg(long, visible_alias = "net", value_name = "WHICH")]
    pub network: Option<NetworkChoice>,
    /// A port that the program listens on, `[[ADDRESS:]HOST:]PORT[/udp]`; with a network of its own it is reached from the host, at 127.0.0.1 if no address is named
    #[arg(short, long = "port", visible_alias = "publish", value_name = "PORT")]
    pub ports: Vec<String>,
    /// The same for every port that the formation names
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Adds a line to /etc/hosts, `NAME:ADDRESS`
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Host name inside [default: the formation's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Working directory inside
    #[arg(short, long, visible_aliases = ["pwd", "cwd"], value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User and group inside, `USER[:GROUP]`, names or numbers: without a group, those that the formation's own files say
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// A capability that the program has in namespaces of its own, for instance CHOWN; it has none otherwise
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// A capability of the formation that it has not; `ALL` is all of them
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// Gives the program a terminal of its own, in which the caller's shows through
    #[arg(short, long)]
    pub tty: bool,
    /// The program reads the caller's stdin: as it does without this
    #[arg(short, long)]
    pub interactive: bool,
    /// The signal that asks the program to end when its time is over, for instance SIGINT
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// The root cannot be written to
    #[arg(long)]
    pub read_only: bool,
    /// Keeps what is written to the root in this directory, and goes on from there the next time: `forge commit DIR` makes a formation of it
    #[arg(long, value_name = "DIR")]
    pub writable: Option<PathBuf>,
    /// Where it runs.
    #[command(flatten)]
    pub whereabouts: WhereOptions,
    /// Bounds, and what must be had.
    #[command(flatten)]
    pub bounds: BoundOptions,
    /// What others need and forge does anyway, or never does.
    #[command(flatten)]
    pub habits: HabitOptions,
    /// Says more (`-v` is a volume here)
    #[arg(long, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// Bounds of a run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct BoundOptions {
    /// Bound on memory, for instance 512M
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Swap beside that memory [default: none]
    #[arg(long, value_name = "BYTES")]
    pub swap: Option<String>,
    /// Bound on processors, for instance 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Weight against others where processors are scarce; 1024 is usual
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on, for instance 0-2,5
    #[arg(long = "cpuset-cpus", visible_alias = "cpu-cores", value_name = "LIST")]
    pub cpuset: Option<String>,
    /// Bound on processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "NUMBER")]
    pub pids: Option<u64>,
    /// Bytes a second read from each disk, and as many written
    #[arg(long, value_name = "BYTES")]
    pub io: Option<String>,
    /// Bound on wall time, for instance 90s or 10m
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Bound on what it prints, on stdout and stderr together
    #[arg(long, value_name = "BYTES")]
    pub max_output: Option<String>,
    /// Bound on what lies in memory together: what is written to the root, /tmp, /dev/shm [default: that of memory]
    #[arg(long, visible_alias = "shm-size", value_name = "BYTES")]
    pub tmpfs_size: Option<String>,
    /// A resource limit, `NAME=SOFT[:HARD]`, for instance nofile=1024
    #[arg(long, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Isolation without which the run is refused: user, network, memory, cpus, pids, cores, io, seccomp, capabilities
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub require: Vec<String>,
}

/// Flags of others. Those that ask for what every run has are taken; those that ask for what no run has are refused with words.
#[derive(Debug, Clone, Default, Args)]
pub struct HabitOptions {
    /// Docker: nothing of a run stays.
    #[arg(long, hide = true)]
    pub rm: bool,
    /// Docker: process 1 collects what others leave.
    #[arg(long, hide = true)]
    pub init: bool,
    /// Apptainer: the root can be written to in memory.
    #[arg(long, hide = true)]
    pub writable_tmpfs: bool,
    /// Apptainer: nothing of the caller's environment.
    #[arg(long, hide = true)]
    pub cleanenv: bool,
    /// Apptainer: nothing of the caller's home.
    #[arg(long, hide = true)]
    pub no_home: bool,
    /// Apptainer: namespaces and empty directories.
    #[arg(long, hide = true)]
    pub contain: bool,
    /// Apptainer: all of them.
    #[arg(short = 'C', long, hide = true)]
    pub containall: bool,
    /// Docker: everything is allowed.
    #[arg(long, hide = true)]
    pub privileged: bool,
    /// Docker: in the background.
    #[arg(short = 'd', long, hide = true)]
    pub detach: bool,
    /// Joblet: when it begins.
    #[arg(long, hide = true, value_name = "TIME")]
    pub schedule: Option<String>,
    /// Joblet: what a graphics processor must have.
    #[arg(long, hide = true, value_name = "BYTES")]
    pub gpu_memory: Option<String>,
    /// Docker: a name of the run.
    #[arg(long, hide = true, value_name = "NAME")]
    pub name: Option<String>,
    /// Joblet's.
    #[command(flatten)]
    pub joblet: JobletOptions,
}

/// What of the network a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkChoice {
    /// A loopback of its own.
    #[value(alias = "isolated")]
    None,
    /// The host's.
    Host,
}
