//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::time::parse_span;

const AFTER_HELP: &str = "\
Examples:
  commucat-cli init                        make keys, store and the first invite
  commucat-cli invite create --uses 5 --expires 7d --qr
  commucat-cli device list
  commucat-cli diagnose                    look at everything, with a hint for each problem
  commucat-cli backup /var/backups/today   copy the store while the server runs
  commucat-cli peer ping chat.example.org  ask another domain for a signed answer
  commucat-cli --data /var/lib/commucat config show

While the server runs, commands go to it over `admin.sock` in its data directory; otherwise
they open the store themselves. Run them as the server's user, in its directory or with the
same --config, --data and COMMUCAT_* variables.

Exit codes: 0 done, 1 not done (or `diagnose` found a failure), 2 wrong use, 70 a defect of this
program.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  commucat-cli backup /var/backups/commucat/monday
  commucat-cli --json backup /var/backups/commucat/monday     sums and sizes for a script
  commucat-cli restore --check /var/backups/commucat/monday   read it again";

const COPY_EXAMPLES: &str = "\
Examples:
  commucat-cli store copy --from sqlite:/var/lib/commucat --to postgres://commucat@db/commucat
  COMMUCAT_STORAGE_URL=postgres://commucat:secret@db/commucat commucat-cli store copy";

const RESTORED_EXAMPLES: &str = "\
Examples:
  systemctl stop commucat                  on every node
  pg_restore --clean --dbname commucat monday.dump
  commucat-cli store restored --yes        once, before the first server starts";

const RESTORE_EXAMPLES: &str = "\
Examples:
  commucat-cli restore --check /var/backups/commucat/monday
  commucat-cli restore /var/backups/commucat/monday           on an empty machine
  commucat-cli restore --force /var/backups/commucat/monday   in place of a store
  commucat-cli restore --unchanged /mnt/move                  after a move to another machine";

/// Administration of a CommuCat server
#[derive(Clone, Debug, Parser)]
#[command(name = "commucat-cli", version, after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file; without it `commucat.toml` of this directory, if there is one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "COMMUCAT_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Directory of everything that the server keeps
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<String>,

    /// Domain of the server, the part of every address behind the `@`
    #[arg(long, global = true, value_name = "NAME")]
    pub domain: Option<String>,

    /// Any key of the configuration, as `block.name=value`; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make the data directory, the keys, the store and the first invite
    ///
    /// The server does the same on its first start; this is for whoever wants to see and back up the
    /// keys before anybody connects. What exists is left as it is.
    Init,
    /// Bring the store up to date with this release
    ///
    /// The server does the same when it starts. Make a backup first: an older release refuses a newer
    /// store.
    Migrate,
    /// Copy the embedded store, also while the server runs
    ///
    /// The copy is consistent, and holds everything that was acknowledged before the command began.
    /// The directory is made; it gets the store, the ledger if it is a file, and a list of both with
    /// their sums. The keys are not in it unless you ask: keep a copy of them apart.
    Backup(Backup),
    /// Put a backup in the place of the embedded store; no server may run
    ///
    /// Nothing is touched before the sums and the whole database were checked. A store that is
    /// there is kept beside the new one. What was acknowledged after the backup is gone: every
    /// device is told that something may be missing.
    Restore(Restore),
    /// Move the store to another backend
    #[command(subcommand)]
    Store(Store),
    /// Replace keys of this domain
    ///
    /// Without a flag: the Noise key, by which clients know the server in the handshake. Old and new
    /// are both accepted for 30 days, and nobody is disconnected.
    RotateKeys(RotateKeys),
    /// Look at configuration, files, certificate, clock, store, port and a real handshake
    ///
    /// Each check is ok, warn, fail or skip, with a hint for what to do. Exit code 1 if one failed.
    Diagnose(Diagnose),
    /// Make, list and revoke invites
    #[command(subcommand)]
    Invite(Invite),
    /// List, show and revoke devices
    #[command(subcommand)]
    Device(Device),
    /// List the nodes of this domain, and let one of them end
    #[command(subcommand)]
    Node(Node),
    /// Name, list, allow and block other domains
    #[command(subcommand)]
    Peer(Peer),
    /// Show the configuration
    #[command(subcommand)]
    Config(Config),
}

/// `backup`
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct Backup {
    /// A directory that is empty or does not exist
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// Put the key file into it too: whoever reads it can pose as this server
    #[arg(long)]
    pub with_keys: bool,
}

/// `restore`
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct Restore {
    /// The directory that `backup` made
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// Compare the backup with its sums and check its database, and do nothing else
    #[arg(long, conflicts_with_all = ["force", "unchanged"])]
    pub check: bool,
    /// Replace the store that is there; it is kept in a directory beside
    #[arg(long)]
    pub force: bool,
    /// The server was stopped before the backup was made and has not run since: nobody is told
    /// that something may be missing
    #[arg(long)]
    pub unchanged: bool,
}

/// `store`
#[derive(Clone, Debug, Subcommand)]
pub enum Store {
    /// Copy the embedded store to an empty database of PostgreSQL; no server may run
    ///
    /// The store is only read. Interrupted, the same command goes on where it ended; until it is
    /// done no server starts on the database. All rows are counted and all sums compared at the end.
    #[command(after_help = COPY_EXAMPLES)]
    Copy {
        /// The store; without it the one of this data directory
        #[arg(long, value_name = "sqlite:DIRECTORY")]
        from: Option<String>,
        /// The database; without it `storage.url`, so that no password is in the command line
        #[arg(long, value_name = "postgres://...")]
        to: Option<String>,
    },
    /// Ready a database that the tools of PostgreSQL have put back to an earlier time; no server may run
    ///
    /// Clients know more than the database then. No position is given out again, every device is told
    /// that something may be missing, and key packages of which some were handed out are dropped.
    /// Interrupted, the same command is given again. `restore` does this by itself for an embedded
    /// store.
    #[command(after_help = RESTORED_EXAMPLES)]
    Restored {
        /// Do it; without this flag nothing is changed
        #[arg(long)]
        yes: bool,
    },
}

/// `rotate-keys`
#[derive(Clone, Debug, clap::Args)]
pub struct RotateKeys {
    /// The Noise key (default): once a year by itself, or when it may have been read by somebody
    #[arg(long, group = "kind")]
    pub noise: bool,
    /// The domain key, which signs the others: only if it may have been stolen
    ///
    /// Clients and invites that know the old key follow a chain that the old key signs.
    #[arg(long, group = "kind", requires = "yes")]
    pub domain_key: bool,
    /// The key that seals new references to queues; old references go on working
    #[arg(long, group = "kind")]
    pub references: bool,
    /// Do it without asking; needed with --domain-key
    #[arg(long)]
    pub yes: bool,
}

/// `diagnose`
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Diagnose {
    /// Leave out the check of the whole store, which reads all of it
    #[arg(long)]
    pub quick: bool,
    /// Fail if no server works on the data directory: for health checks
    #[arg(long)]
    pub running: bool,

    /// What to look at in place of this server
    #[command(subcommand)]
    pub target: Option<Target>,
}

/// What `diagnose` looks at.
#[derive(Clone, Debug, Subcommand)]
pub enum Target {
    /// Look at the way to another domain: name, address, TLS, keys, and an echo through the server
    Federation {
        /// The other domain
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
    },
}

/// `peer`
#[derive(Clone, Debug, Subcommand)]
pub enum Peer {
    /// Name a domain that this server shall talk to, or change what is known of it
    ///
    /// Without flags the server finds it at https://DOMAIN/.well-known/commucat at first contact and
    /// pins its key.
    Add {
        /// Its name, the part of every address behind the `@`
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
        /// Host and port that take its events, if not the domain itself
        #[arg(long, value_name = "HOST[:PORT]")]
        endpoint: Option<String>,
        /// Its domain key, as in its invite links or in hex, told to you by its operator
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// List the domains that are known
    List,
    /// Show what is known of a domain
    Show {
        /// Its name
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
    },
    /// Talk to a domain that asked or was blocked
    Allow {
        /// Its name
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
    },
    /// Talk no more to a domain: what waits for it is returned to its authors
    Block {
        /// Its name
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
    },
    /// Forget a domain with its pinned key; the next contact is a first one
    Remove {
        /// Its name
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
        /// Do it; without this flag the domain is only shown
        #[arg(long)]
        yes: bool,
    },
    /// Ask a domain for a signed answer; needs the running server
    Ping {
        /// Its name
        #[arg(id = "peer", value_name = "DOMAIN")]
        domain: String,
    },
}

/// `invite`
#[derive(Clone, Debug, Subcommand)]
pub enum Invite {
    /// Make an invite and print its link, which cannot be shown again
    Create {
        /// How many accounts it opens
        #[arg(long, value_name = "N", default_value_t = 1,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
        /// How long it lasts: a number with s, m, h, d or w
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_span)]
        expires: std::time::Duration,
        /// Print a QR code too
        #[arg(long)]
        qr: bool,
    },
    /// List invites, oldest first
    List,
    /// Make an invite useless; accounts that it opened stay
    Revoke {
        /// The name in `invite list`, its first digits, or the whole link
        #[arg(value_name = "INVITE")]
        invite: String,
    },
}

/// `device`
#[derive(Clone, Debug, Subcommand)]
pub enum Device {
    /// List all devices
    List,
    /// Show a device and what waits for it
    Show {
        /// Its id in `device list`
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// Shut a device out for good: its session ends, its queue and key packages are deleted
    ///
    /// The device stays in its account's list, which only the account can change; a new key of that
    /// device is refused too.
    Revoke {
        /// Its id in `device list`
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Do it; without this flag the device is only shown
        #[arg(long)]
        yes: bool,
    },
}

/// `node`
#[derive(Clone, Debug, Subcommand)]
pub enum Node {
    /// List the nodes that live, this one first
    List,
    /// Let a node end in order: its devices go to the others, nothing is lost
    ///
    /// The same as SIGTERM. It is for the service manager to start it again or not.
    Drain {
        /// Its name in `node list`; the server of this data directory if there is none
        #[arg(value_name = "NODE")]
        node: Option<String>,
    },
}

/// `config`
#[derive(Clone, Debug, Subcommand)]
pub enum Config {
    /// Show every setting with its value and where it came from; secrets are hidden
    Show {
        /// Only settings that differ from their defaults
        #[arg(long)]
        changed: bool,
    },
    /// Print the commented file `commucat.toml` with all defaults
    Reference,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text
        .split_once('=')
        .ok_or("needs the form block.name=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
