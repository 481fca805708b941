//! `commucat-kills`: kills the server under traffic and shows that nothing is lost or shown twice;
//! then shows that messages between devices that are online touch no disk. With `--upgrades` processes
//! take over from each other instead, and nobody may be refused meanwhile.

mod kills;
mod prober;
mod quiet;

use std::process::ExitCode;

use clap::Parser;
use commucat_testkit::program::{self, say};
use commucat_testkit::server::Backend;

use self::kills::{Ends, Home};

/// Kill the server under traffic, again and again, and judge what the devices saw
#[derive(Debug, Parser)]
struct Args {
    /// How often the server is killed; once of it by SIGTERM
    #[arg(long, default_value_t = 10)]
    cycles: u32,

    /// Repeat the random choices of another run
    #[arg(long)]
    seed: Option<u64>,

    /// Messages that must cause no write to the store
    #[arg(long, default_value_t = 10_000)]
    messages: u64,

    /// Instead: let another process take over so often, and look whether a client notices
    #[arg(long, value_name = "TIMES")]
    upgrades: Option<u32>,

    /// Only count the writes, do not kill
    #[arg(long)]
    quiet_disk: bool,

    /// What keeps the server's durable state
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,

    /// Servers of the domain, any of which is killed; several share PostgreSQL and Redis
    #[arg(long, default_value_t = 1)]
    nodes: usize,

    /// Level of the clients' log, or filters, on stderr
    #[arg(long, default_value = "error")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let work = async {
        let seed = program::seed(args.seed)?;
        if let Some(upgrades) = args.upgrades {
            let home = Home::start(args.backend, 1).await?;
            say(&kills::run((upgrades, Ends::Upgrade), seed, home).await?);
            return Ok(());
        }
        // What happens between nodes is another matter.
        if args.nodes < 2 {
            say(&quiet::run(args.messages, args.backend).await?);
        }
        if !args.quiet_disk {
            let home = Home::start(args.backend, args.nodes).await?;
            say(&kills::run((args.cycles, Ends::Kill), seed, home).await?);
        }
        anyhow::Ok(())
    };
    Box::pin(program::run(&args.log, work)).await
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        let all = [0, 999, 1000, 12_345, 1_234_567].map(super::grouped);

        assert_eq!(all, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
