//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;
use commucat_config::{Config, ConfigError, Sources};

/// The file that is read when no other is named and it exists.
const FILE: &str = "commucat.toml";

const AFTER_HELP: &str = "\
First steps:
  commucat-server                       start with defaults: domain localhost, port 8443 of this
                                        machine, data in ./commucat-data; keys and a self-signed
                                        certificate are made, and an invite is printed
  commucat join '<invite>'              join from another terminal
  commucat-cli invite create            invite somebody else

For others to reach it:
  commucat-server --domain chat.example.org --listen '[::]:8443' \\
      --set server.tls_certificate=fullchain.pem --set server.tls_key=key.pem
  commucat-server --check               look at everything without starting

Every key of the file is also an environment variable: `server.domain` is COMMUCAT_SERVER_DOMAIN.
Flags go over variables, variables over the file. SIGTERM ends connections in order, SIGHUP reads
certificate and keys again, SIGUSR2 starts this program anew with --upgrade.

Exit codes: 0 ended as asked, 1 could not start or go on, 64 wrong use, 78 wrong configuration.";

/// Router for end-to-end encrypted chats: carries messages that it cannot read
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "commucat-server", version, after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file; without it `commucat.toml` of this directory, if there is one
    #[arg(long, value_name = "FILE", env = "COMMUCAT_CONFIG")]
    pub config: Option<PathBuf>,

    /// Directory of everything that the server keeps
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// Domain of this server, the part of every address behind the `@`
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// Address and port to listen on; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// Who may register: invite, open or closed
    #[arg(long, value_name = "WHO")]
    pub registration: Option<String>,

    /// Level of the log, or filters such as `info,commucat_server=debug`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Any key of the configuration, as `block.name=value`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,

    /// Take the ports of the server that runs on the same data; it drains and ends, and nobody is refused
    #[arg(long, conflicts_with = "check")]
    pub upgrade: bool,

    /// Check configuration, certificate, store and ports, and end
    #[arg(long)]
    pub check: bool,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text
        .split_once('=')
        .ok_or("needs the form block.name=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Args {
    /// The configuration that file, environment and these flags give.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut sources = Sources::default();
        match &self.config {
            Some(path) => sources = sources.with_file(path)?,
            None if Path::new(FILE).exists() => sources = sources.with_file(Path::new(FILE))?,
            None => {}
        }
        sources = sources.with_environment();
        for (key, value) in &self.set {
            sources = sources.with_flag(key, value);
        }
        let named = [
            ("server.data", &self.data),
            ("server.domain", &self.domain),
            ("server.registration", &self.registration),
            ("server.log", &self.log),
        ];
        for (key, value) in named {
            if let Some(value) = value {
                sources = sources.with_flag(key, value);
            }
        }
        if !self.listen.is_empty() {
            sources = sources.with_flag("server.listen", &self.listen.join(","));
        }
        Config::load(&sources)
    }
}
