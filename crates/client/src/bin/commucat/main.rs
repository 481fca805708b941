//! `commucat`: a client for the terminal and for scripts.

mod args;
mod ask;
#[cfg(unix)]
mod handover;
mod listen;
mod render;
mod report;

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use commucat_client::vault::{Passphrase, Unlock, VaultError};
use commucat_client::{Client, ClientError, Event, Settings, Suite, Trust};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Cli, Command, Common, PhraseRequest, Request};
use crate::report::{Failure, fail, line, note};

/// Said once a profile.
pub(crate) const CERTIFICATE_WARNING: &str = "Warning: the TLS certificate of the server does not verify. The server's own key is the one \
     of your invite, so the connection goes on. Silence this with `--tls-ca FILE` or `--insecure`.";
/// How long a command goes on with what follows from it.
const LINGER: Duration = Duration::from_secs(4);
/// How long a command waits for another short command on the same profile.
const TURN: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let as_json = cli.common.json;
    match Box::pin(run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, as_json),
    }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMMUCAT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let settings = settings(&cli.common)?;
    let common = cli.common;
    match cli.command {
        Command::Join { invite } => join(&settings, &invite, &common).await,
        Command::Recover { invite } => {
            let phrase = read_phrase()?;
            let client = Client::recover(settings.clone(), &invite, &phrase).await?;
            let result = welcome(&client, &settings, &common).await;
            client.shutdown().await;
            result
        }
        Command::Link { answer } => link(&settings, answer, &common).await,
        Command::Listen { read, count } => {
            let style = listen::Style {
                json: common.json,
                read,
                count,
            };
            listen(&settings, style).await
        }
        Command::Ask(request) => one_request(&settings, request, &common).await,
    }
}

fn settings(common: &Common) -> Result<Settings, Failure> {
    let directory = match &common.profile {
        Some(directory) => directory.clone(),
        None => default_profile()?,
    };
    let mut settings = Settings::new(directory);
    if let Some(path) = &common.passphrase_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(
                format!("passphrase file `{}`: {error}", path.display()),
                "give a file that holds the passphrase in its first line",
            )
        })?;
        let first = text.lines().next().unwrap_or_default().to_owned();
        settings.unlock = Unlock::Passphrase(Passphrase::new(first));
    } else if let Some(path) = &common.key_file {
        settings.unlock = Unlock::KeyFile(path.clone());
    }
    if common.insecure {
        settings.trust = Trust::Insecure;
    } else if let Some(path) = &common.tls_ca {
        settings.trust = Trust::Ca(path.clone());
    }
    if common.classical {
        settings.suite = Suite::Classical;
    }
    settings.padding = common.padding;
    Ok(settings)
}

fn default_profile() -> Result<PathBuf, Failure> {
    let home = std::env::home_dir().ok_or_else(|| {
        Failure::new(
            "this user has no home directory",
            "name a profile with `--profile DIR`",
        )
    })?;
    Ok(home
        .join(".local")
        .join("share")
        .join("commucat")
        .join("default"))
}

async fn join(settings: &Settings, invite: &str, common: &Common) -> Result<(), Failure> {
    let client = Client::join(settings.clone(), invite).await?;
    let result = welcome(&client, settings, common).await;
    client.shutdown().await;
    result
}

/// Says what was made, and what to do next.
async fn welcome(client: &Client, settings: &Settings, common: &Common) -> Result<(), Failure> {
    let caught_up = client.caught_up(Duration::from_secs(common.timeout)).await;
    // A linked device introduces itself to the others before it leaves again.
    drop(client.quiet(LINGER).await);
    drop(listen::tell_notices(client, listen::say).await);
    if client.status().await?.certificate_failed {
        note(CERTIFICATE_WARNING);
    }
    let mut me = ask::me(client).await?;
    if common.json {
        if let serde_json::Value::Object(map) = &mut me {
            map.insert(
                "profile".to_owned(),
                settings.directory.display().to_string().into(),
            );
        }
        line(&me.to_string());
    } else {
        note(&format!("Profile: {}", settings.directory.display()));
        if matches!(settings.unlock, Unlock::KeyFileBeside) {
            note(
                "It is encrypted with a key file in the same directory: whoever copies the whole \
                 directory can read it. With `--passphrase-file` it needs a passphrase instead.",
            );
        }
        for text in render::me(&me) {
            line(&text);
        }
        if me.get("holds_account_key") == Some(&serde_json::Value::Bool(true)) {
            note("Next: write down your recovery phrase: `commucat phrase show`.");
        }
    }
    Ok(caught_up?)
}

async fn link(settings: &Settings, answer: Option<String>, common: &Common) -> Result<(), Failure> {
    let code = Client::begin_link(settings)?;
    let answer = match answer {
        Some(answer) => answer,
        None if common.json && !std::io::stdin().is_terminal() => {
            line(&json!({ "code": code }).to_string());
            read_stdin()?
        }
        None => {
            line(&code);
            if let Some(qr) = render::qr(&code) {
                note(&qr);
            }
            note("On your first device run: commucat device link <the code above>");
            note("Then paste its answer here (or later: commucat link --answer <answer>):");
            read_line()?
        }
    };
    let answer = answer.trim();
    if answer.is_empty() {
        // Not a failure: the code stays valid, the second step can come later.
        return Ok(());
    }
    let client = Client::finish_link(settings.clone(), answer).await?;
    let result = welcome(&client, settings, common).await;
    client.shutdown().await;
    result
}

/// Never as an argument: other users see those, and shells remember them.
fn read_phrase() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        note("Type the 24 words of your recovery phrase, in one line:");
        return read_line();
    }
    read_stdin()
}

fn read_line() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_line(&mut text)
        .map_err(|error| stdin_failure(&error))?;
    Ok(text)
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| stdin_failure(&error))?;
    Ok(text)
}

fn stdin_failure(error: &std::io::Error) -> Failure {
    Failure::new(format!("standard input: {error}"), "")
}

async fn listen(settings: &Settings, style: listen::Style) -> Result<(), Failure> {
    let client = open(settings).await?;
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let interrupted = stop.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = interrupted.cancelled() => {}
            () = signal() => interrupted.cancel(),
        }
    });
    #[cfg(unix)]
    let door = handover::Door::open(&settings.directory, client.clone(), &tracker, stop.clone());
    #[cfg(unix)]
    if let Err(error) = &door {
        note(&format!(
            "Warning: other commands on this profile have to wait: {error}"
        ));
    }
    let result = listen::run(&client, style, &stop).await;
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    client.shutdown().await;
    result
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    drop(tokio::signal::ctrl_c().await);
}

async fn open(settings: &Settings) -> Result<Client, Failure> {
    let deadline = Instant::now() + TURN;
    loop {
        match Client::open(settings.clone()).await {
            Err(ClientError::Vault(VaultError::InUse { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return Ok(other?),
        }
    }
}

async fn one_request(
    settings: &Settings,
    mut request: Request,
    common: &Common,
) -> Result<(), Failure> {
    if let Request::Send { text, .. } = &mut request
        && text == "-"
    {
        *text = read_stdin()?;
        text.truncate(text.trim_end_matches('\n').len());
    }
    let within = Duration::from_secs(common.timeout);
    if let Request::Phrase(PhraseRequest::Enter { words }) = &mut request {
        *words = read_phrase()?;
    }
    let answer = anywhere(settings, &request, within).await?;
    if common.json {
        line(&answer.to_string());
    } else {
        for text in render::text(&request, &answer) {
            line(&text);
        }
    }
    Ok(())
}

/// Hands the request over if another process has the profile open and answers.
async fn elsewhere(
    settings: &Settings,
    request: &Request,
    within: Duration,
) -> Option<Result<serde_json::Value, Failure>> {
    #[cfg(unix)]
    return handover::ask(&settings.directory, request, within).await;
    #[cfg(not(unix))]
    return None;
}

/// Answers here, or where the profile is open; waits for its turn in between.
async fn anywhere(
    settings: &Settings,
    request: &Request,
    within: Duration,
) -> Result<serde_json::Value, Failure> {
    let deadline = Instant::now() + TURN;
    loop {
        if let Some(answer) = elsewhere(settings, request, within).await {
            return answer;
        }
        match Client::open(settings.clone()).await {
            Ok(client) => return here(client, request, within).await,
            Err(ClientError::Vault(VaultError::InUse { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn here(
    client: Client,
    request: &Request,
    within: Duration,
) -> Result<serde_json::Value, Failure> {
    let mut events = client.subscribe();
    let result = Box::pin(ask::answer(&client, request.clone(), within)).await;
    if request.changes_something() && result.is_ok() {
        // What is not done by then is done by the next command.
        drop(client.quiet(within.min(LINGER)).await);
    }
    // They wait for the next command if the client has stopped.
    drop(listen::tell_notices(&client, listen::say).await);
    client.shutdown().await;
    // The stream of events ends with the last handle.
    drop(client);
    while let Some(event) = events.next().await {
        if matches!(event, Event::CertificateWarning) {
            note(CERTIFICATE_WARNING);
        }
    }
    result
}
