//! `diagnose`: looks at everything that a server needs, from its configuration to a real handshake.

mod certificate;
mod check;
mod federation;
mod local;
mod nodes;
mod probe;
mod remote;
mod store;

use std::process::ExitCode;

use commucat_config::Config;

use self::check::{Check, Checks};
use crate::args;
use crate::output::Output;
use crate::report::{self, Report};

/// Runs every check; the code says whether one failed.
pub(crate) async fn run(
    loaded: Result<Config, Report>,
    how: &args::Diagnose,
    output: Output,
) -> Result<ExitCode, Report> {
    let mut checks = Checks::default();
    match loaded {
        Err(report) => checks.push(Check::fail(
            "configuration",
            report.line(),
            report.next_step(),
        )),
        Ok(config) => match &how.target {
            None => all(&config, how, &mut checks).await,
            Some(args::Target::Federation { domain }) => {
                federation::check(&config, domain, &mut checks).await;
            }
        },
    }
    let code = if checks.failed() > 0 { report::USER } else { 0 };
    output.show(&checks.shown(), |_| checks.text())?;
    Ok(ExitCode::from(code))
}

async fn all(config: &Config, how: &args::Diagnose, checks: &mut Checks) {
    let domain = config.server.domain.as_str();
    checks.push(Check::ok("configuration", format!("domain {domain}")));
    checks.push(local::data(config));
    let (keyring, check) = local::keys(config);
    checks.push(check);
    certificate::check(config, checks);
    checks.push(local::clock(config, keyring.as_ref()));
    let is_running = store::check(config, how, checks).await;
    if how.running && !is_running {
        checks.push(Check::fail(
            "server",
            "no server works on this data directory",
            "start it, and look at its log; is it the right directory?",
        ));
    }
    remote::check(config, keyring.as_ref(), is_running, checks).await;
    if config.storage.redis_url.is_some() {
        checks.push(nodes::check(config, is_running).await);
    }
}
