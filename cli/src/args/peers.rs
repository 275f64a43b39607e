//! What can be typed about peers and keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AttachChoice;

/// `forge push`
#[derive(Debug, Args)]
pub struct PushArguments {
    /// Formations (digests, prefixes or names), then the peer: its name (`forge remote`), or an address such as file:///srv/forge, https://HOST or oci://HOST/REPOSITORY[:TAG]
    #[arg(value_names = ["FORMATION", "PEER"], num_args = 2.., required = true)]
    pub words: Vec<String>,
    /// Gives it this name there [default: the name that was typed, else the formation's own]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Pushes the files that were fetched for it too, so that its lock keeps working when a mirror has moved on
    #[arg(long)]
    pub sources: bool,
    /// A key of `forge key` that signs what the steps gave [default: the only key there is]
    #[arg(long, value_name = "KEY")]
    pub sign: Option<String>,
    /// To a registry: documents that go along with the image, as referrers
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub attach: Vec<AttachChoice>,
    /// To a registry: how layers are compressed, `zstd` or `gzip`, with a level after a colon
    #[arg(long, value_name = "METHOD[:LEVEL]", default_value = "zstd:3")]
    pub compression: store::format::Compression,
}

/// Whom a build gives what it makes.
#[derive(Debug, Clone, Default, Args)]
pub struct PushOptions {
    /// Gives a peer what the steps give, while others are still made, and the formation in the end; --json has a receipt
    #[arg(long = "push", value_name = "PEER")]
    pub peer: Option<String>,
    /// A key of `forge key` that signs what the steps gave [default: the only key there is]
    #[arg(long, value_name = "KEY", requires = "peer")]
    pub sign: Option<String>,
    /// Pushes the files that were fetched too
    #[arg(long, requires = "peer")]
    pub sources: bool,
}

/// `forge pull`
#[derive(Debug, Args)]
pub struct PullArguments {
    /// A digest, a prefix of one or a name there; or an image of a registry, oci://HOST/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// A peer's name or address [default: all that are configured, in one round]
    #[arg(value_name = "PEER")]
    pub peer: Option<String>,
    /// Also names the formation so
    #[arg(short, long, value_name = "NAME")]
    pub tag: Option<String>,
}

/// `forge copy`
#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The peer that has it, by name or address
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The peer that is to have it, by name or address
    #[arg(value_name = "TO")]
    pub to: String,
    /// A digest, a prefix of one or a name there
    #[arg(value_name = "FORMATION")]
    pub formation: String,
}

/// `forge serve`
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7467")]
    pub listen: std::net::SocketAddr,
    /// A file of tokens (`forge key token`); who has none may do nothing then
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// What may be done without a token: read, write [default: read, where there are no tokens]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', value_parser = ["read", "write"])]
    pub anonymous: Option<Vec<String>>,
    /// A certificate in PEM, with those that lead to an authority: TLS is spoken
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    pub certificate: Option<PathBuf>,
    /// The certificate's key in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub certificate_key: Option<PathBuf>,
    /// A key of `forge key` that signs what this store's own steps gave
    #[arg(long, value_name = "KEY")]
    pub sign: Option<String>,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub connections: usize,
    /// How long a client may be silent [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub silence: Option<String>,
}

/// `forge remote`
#[derive(Debug, Args)]
pub struct RemoteArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: RemoteCommand,
}

/// What `forge remote` does.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Adds a peer to your own settings
    Add {
        /// What it is called
        name: String,
        /// file://DIR, http://HOST[:PORT], https://HOST or oci://HOST/REPOSITORY
        address: String,
        /// Lower ones are asked first
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        priority: u32,
        /// A file with the token that lets us in
        #[arg(long, value_name = "FILE", conflicts_with = "project")]
        token_file: Option<PathBuf>,
        /// Writes it into the project's forge.toml instead
        #[arg(long)]
        project: bool,
    },
    /// Lists the peers, as they are asked
    List,
    /// Removes a peer from your own settings
    Remove {
        /// What it is called
        name: String,
        /// Removes it from the project's forge.toml instead
        #[arg(long)]
        project: bool,
    },
    /// Asks peers whether they are there and what they allow; exits with 11 if one does not answer
    Test {
        /// Names or addresses [default: all]
        peers: Vec<String>,
    },
}

/// `forge key`
#[derive(Debug, Args)]
pub struct KeyArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What `forge key` does.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key that signs claims, and prints its public half for others to trust
    Generate {
        /// What it is called, for instance team-1
        name: String,
    },
    /// Believes claims that this key has signed
    Trust {
        /// A public key, NAME:BASE64
        key: String,
    },
    /// Lists own keys and those that are trusted
    List,
    /// Makes a token for `forge serve`, prints it once, and adds its digest to a file
    Token {
        /// Whose it is, for people
        name: String,
        /// What it lets do
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "read", value_parser = ["read", "write"])]
        scopes: Vec<String>,
        /// The file that `forge serve --tokens` reads
        #[arg(long, value_name = "FILE")]
        tokens: PathBuf,
    },
}
