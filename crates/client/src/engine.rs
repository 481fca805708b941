//! The engine: the one task that owns the vault, the chats and the connection.
//!
//! It feeds inputs (commands, reports of the connection, time) to [`core::Core`], which answers
//! with effects, and carries these out. Steps run on a blocking thread, for they write to disk.

mod adding;
mod commands;
mod core;
mod custody;
mod devices;
mod given;
mod gone;
mod groups;
mod held;
mod history;
mod inbound;
mod invited;
pub(crate) mod model;
mod notices;
mod online;
mod order;
mod outbound;
mod people;
mod receipts;
mod replies;
mod results;
mod signin;
mod strangers;
pub(crate) mod tables;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::core::{Core, Effect};
pub(crate) use self::signin::ticket;
use crate::client::{Client, Command, Inner};
use crate::connect::session::{Link, Report};
use crate::error::ClientError;
use crate::event::{BEHIND_MAX, Connection, Event};
use crate::settings::Settings;
use crate::vault::Vault;

/// Commands that wait for the engine; more callers wait for room.
const COMMANDS_MAX: usize = 256;
/// Inputs that share one transaction.
const BATCH_MAX: usize = 256;
/// The first wait before connecting again, doubled with each failure up to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// The engine looks around at least this often.
const IDLE: Duration = Duration::from_secs(60);

/// Starts the engine on an opened vault.
pub(crate) fn start(vault: Vault, settings: Settings) -> Result<Client, ClientError> {
    let core = Core::load(vault, settings.suite, (settings.clock)())?;
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (events, _) = broadcast::channel(BEHIND_MAX);
    let (state, connection) = watch::channel(Connection::Connecting);
    let (stop, kill, tracker) = (
        CancellationToken::new(),
        CancellationToken::new(),
        TaskTracker::new(),
    );
    let engine = Engine {
        core: Some(core),
        inbox,
        events: events.clone(),
        state,
        settings,
        tracker: tracker.clone(),
        link: None,
        failures: 0,
        next: Some(Instant::now()),
    };
    let (stopped, killed) = (stop.clone(), kill.clone());
    tracker.spawn(async move { engine.run(stopped, killed).await });
    tracker.close();
    let inner = Inner {
        commands,
        events,
        connection,
        stop,
        kill,
        tracker,
    };
    Ok(Client {
        inner: Arc::new(inner),
    })
}

enum Input {
    Command(Command),
    Report(Report),
    Tick,
}

struct Engine {
    /// Away while a step runs.
    core: Option<Core>,
    inbox: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    state: watch::Sender<Connection>,
    settings: Settings,
    tracker: TaskTracker,
    link: Option<Link>,
    failures: u32,
    /// When to connect; none while connected, or for good.
    next: Option<Instant>,
}

impl Engine {
    async fn run(mut self, stop: CancellationToken, kill: CancellationToken) {
        loop {
            let inputs = tokio::select! {
                () = kill.cancelled() => return,
                () = stop.cancelled() => break,
                inputs = self.inputs() => inputs,
            };
            if let Err(error) = Box::pin(self.handle(inputs)).await {
                tracing::error!(error = %error.chain(), "the client stops");
                let state = Connection::Stopped {
                    reason: error.chain(),
                };
                self.state.send_replace(state.clone());
                drop(self.events.send(Event::Connection(state)));
                return;
            }
        }
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }

    /// Waits for something to do. Cancel-safe: nothing is taken before the future is ready.
    async fn inputs(&mut self) -> Vec<Input> {
        let now = (self.settings.clock)();
        let wake = self.core.as_ref().and_then(Core::wake_at);
        let wake = wake
            .map_or(IDLE, |at| at.since(now) + Duration::from_millis(1))
            .min(IDLE);
        let next = self.next.unwrap_or_else(|| Instant::now() + IDLE);
        let first = tokio::select! {
            Some(command) = self.inbox.recv() => Input::Command(command),
            Some(report) = report(self.link.as_mut()) => Input::Report(report),
            () = tokio::time::sleep_until(next) => {
                self.connect();
                return Vec::new();
            }
            () = tokio::time::sleep(wake) => Input::Tick,
        };
        let mut inputs = vec![first];
        // What is there already shares the transaction.
        while inputs.len() < BATCH_MAX {
            if let Ok(command) = self.inbox.try_recv() {
                inputs.push(Input::Command(command));
            } else if let Some(report) = self
                .link
                .as_mut()
                .and_then(|link| link.reports.try_recv().ok())
            {
                inputs.push(Input::Report(report));
            } else {
                break;
            }
        }
        inputs
    }

    fn connect(&mut self) {
        self.next = None;
        let Some(core) = &mut self.core else { return };
        core.set_time((self.settings.clock)());
        match core.ticket(self.settings.trust.clone()) {
            Ok(ticket) => {
                self.link = Some(Link::start(ticket, self.settings.padding, &self.tracker));
            }
            Err(error) => tracing::error!(error = %error.chain(), "cannot connect"),
        }
    }

    async fn handle(&mut self, inputs: Vec<Input>) -> Result<(), ClientError> {
        let mut closed = None;
        let mut work = Vec::with_capacity(inputs.len());
        for input in inputs {
            match input {
                Input::Report(Report::Closed(error)) => closed = Some(error.chain()),
                input @ (Input::Report(_) | Input::Command(_) | Input::Tick) => work.push(input),
            }
        }
        if !work.is_empty() {
            let all = move |core: &mut Core| work.into_iter().try_for_each(|one| apply(core, one));
            let effects = self.step(all).await?;
            let reason = self.carry_out(effects);
            closed = closed.or(reason);
        }
        match closed {
            Some(reason) => self.disconnected(reason).await,
            None => Ok(()),
        }
    }

    async fn disconnected(&mut self, reason: String) -> Result<(), ClientError> {
        self.link = None;
        let offline = move |core: &mut Core| {
            core.on_offline(reason);
            Ok(())
        };
        let effects = self.step(offline).await?;
        self.carry_out(effects);
        let state = self.state.borrow().clone();
        if !matches!(
            state,
            Connection::Replaced | Connection::Revoked | Connection::Stopped { .. }
        ) {
            self.next = Some(Instant::now() + self.backoff());
        }
        Ok(())
    }

    /// Exponential with full jitter over its upper half, so that a restarted server is not met by
    /// everybody at once.
    fn backoff(&mut self) -> Duration {
        let wait = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(8))
            .min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        let [random]: [u8; 1] = commucat_crypto::secret::random_bytes();
        wait / 2 + wait.saturating_mul(u32::from(random)) / 512
    }

    async fn step(
        &mut self,
        work: impl FnOnce(&mut Core) -> Result<(), ClientError> + Send + 'static,
    ) -> Result<Vec<Effect>, ClientError> {
        let Some(mut core) = self.core.take() else {
            return Err(ClientError::Stopped);
        };
        let now = (self.settings.clock)();
        let done = tokio::task::spawn_blocking(move || {
            let result = core.step(now, work);
            (core, result)
        });
        // A panic in a step is a fault of this program; the state is not to be trusted after it.
        let (core, result) = done.await.map_err(|_| ClientError::Stopped)?;
        self.core = Some(core);
        result
    }

    /// Carries effects out; the reason if the connection is to be closed.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Option<String> {
        let mut close = None;
        for effect in effects {
            match effect {
                Effect::Send(frames) => {
                    if self.link.as_ref().is_some_and(|link| !link.send(frames)) {
                        close.get_or_insert_with(|| "connection is stuck".to_owned());
                    }
                }
                // Nobody listens: that is fine.
                Effect::Tell(event) => drop(self.events.send(event)),
                Effect::Answer(answer) => answer(),
                Effect::State(state) => {
                    if state == Connection::Online {
                        self.failures = 0;
                    }
                    self.state.send_replace(state.clone());
                    drop(self.events.send(Event::Connection(state)));
                }
                Effect::Close(reason) => close = Some(reason),
            }
        }
        close
    }
}

async fn report(link: Option<&mut Link>) -> Option<Report> {
    match link {
        Some(link) => link.reports.recv().await,
        None => std::future::pending().await,
    }
}

fn apply(core: &mut Core, input: Input) -> Result<(), ClientError> {
    match input {
        Input::Command(command) => core.on_command(command),
        Input::Report(Report::Online(welcome)) => core.on_online(&welcome),
        Input::Report(Report::Frames(frames)) => core.on_frames(frames),
        Input::Report(Report::Closed(_)) => Ok(()),
        Input::Tick => core.on_time(),
    }
}

#[cfg(test)]
mod tests;
