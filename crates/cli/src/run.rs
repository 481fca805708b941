//! Runs the command that the command line names.

use std::process::ExitCode;

use commucat_config::Config;

use crate::args::{Args, Command};
use crate::commands::{
    backup, config, device, diagnose, init, invite, migrate, node, peer, restore, rotate_keys,
    store,
};
use crate::output::Output;
use crate::report::Report;
use crate::site;

/// Runs it to its end; the code to end with.
///
/// # Errors
///
/// [`Report`] if it was not done.
pub fn run(args: Args) -> Result<ExitCode, Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Report::new("the system gives no runtime").hint(error.to_string()))?;
    runtime.block_on(dispatch(args))
}

async fn dispatch(args: Args) -> Result<ExitCode, Report> {
    let output = if args.json {
        Output::Json
    } else {
        Output::Text
    };
    if let Command::Config(command) = &args.command {
        config::run(command, &args, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = site::sources(&args).and_then(|sources| Ok(Config::load(&sources)?));
    if let Command::Diagnose(how) = &args.command {
        return diagnose::run(loaded, how, output).await;
    }
    let config = loaded?;
    match args.command {
        Command::Init => init::run(&config, output).await?,
        Command::Migrate => migrate::run(&config, output).await?,
        Command::Backup(how) => backup::run(&config, &how, output).await?,
        Command::Restore(how) => restore::run(&config, &how, output).await?,
        Command::Store(command) => store::run(&config, command, output).await?,
        Command::RotateKeys(which) => rotate_keys::run(&config, &which, output).await?,
        Command::Invite(command) => invite::run(&config, command, output).await?,
        Command::Node(command) => node::run(&config, command, output).await?,
        Command::Peer(command) => peer::run(&config, command, output).await?,
        Command::Device(command) => device::run(&config, command, output).await?,
        // Handled above.
        Command::Config(_) | Command::Diagnose(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}
