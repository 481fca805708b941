//! The client: one device of one account, driven by an application.
//!
//! A [`Client`] is a handle of a running engine. The engine connects by itself, keeps the
//! connection, resends what is unacknowledged and stores what arrives before it acknowledges it;
//! the application asks and listens.

mod command;
mod start;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use commucat_proto::id::GroupId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::command::{Command, Reply};
pub use self::view::{Contact, Conversation, Decision, Device, Me, SafetyNumber, Sent, Status};
use crate::error::ClientError;
use crate::event::{Connection, Event, Events, Message, Notice, Request, Tick};
use crate::settings::Settings;
#[cfg(doc)]
use crate::vault::VaultError;

/// How often [`Client::quiet`] looks.
const QUIET_LOOK: Duration = Duration::from_millis(50);

/// Handle of a running client. Clones drive the same engine.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What an engine and its handles share.
pub(crate) struct Inner {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) connection: watch::Receiver<Connection>,
    pub(crate) stop: CancellationToken,
    pub(crate) kill: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

impl Client {
    /// Makes an account and its first device with an invite link, registers, and starts.
    ///
    /// A join that failed half-way leaves a profile that the next join completes.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for a link that does not parse; [`VaultError::Exists`] if the
    /// profile has an account; the errors of connecting.
    pub async fn join(settings: Settings, invite: &str) -> Result<Self, ClientError> {
        Box::pin(start::join(settings, invite)).await
    }

    /// Makes this device the only one of an account whose other devices are lost, with the recovery
    /// phrase and any invite link of its server. Devices that are not lost after all are signed
    /// out; conversations continue as others add the account again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for a link or phrase that does not parse; [`VaultError::Exists`];
    /// the errors of connecting.
    pub async fn recover(
        settings: Settings,
        invite: &str,
        phrase: &str,
    ) -> Result<Self, ClientError> {
        Box::pin(start::recover(settings, invite, phrase)).await
    }

    /// Starts the device of an existing profile. It connects by itself, now and whenever the
    /// connection is lost; [`Self::connected`] waits for it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`] if the profile does not open.
    pub async fn open(settings: Settings) -> Result<Self, ClientError> {
        Box::pin(start::open(settings)).await
    }

    /// Makes a profile for a further device of an account, or takes up the one begun before;
    /// returns the code to show to the first device ([`Self::link_device`]).
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] if the profile has an account.
    pub fn begin_link(settings: &Settings) -> Result<String, ClientError> {
        start::begin_link(settings)
    }

    /// Takes the first device's answer, registers this device, and starts.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for an answer that does not parse or is for another device; the
    /// errors of connecting.
    pub async fn finish_link(settings: Settings, answer: &str) -> Result<Self, ClientError> {
        Box::pin(start::finish_link(settings, answer)).await
    }

    /// A stream of everything that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(self.inner.events.subscribe())
    }

    /// Waits until the client is signed in.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] after `within`; the reason of the last attempt is in
    /// [`Self::status`]. [`ClientError::Handshake`] if the device was revoked or replaced.
    pub async fn connected(&self, within: Duration) -> Result<(), ClientError> {
        self.wait_connection(within, |state| {
            matches!(state, Connection::Online | Connection::CaughtUp)
        })
        .await
    }

    /// Waits until the client is signed in and has everything that waited on the server.
    ///
    /// # Errors
    ///
    /// As [`Self::connected`].
    pub async fn caught_up(&self, within: Duration) -> Result<(), ClientError> {
        self.wait_connection(within, |state| *state == Connection::CaughtUp)
            .await
    }

    async fn wait_connection(
        &self,
        within: Duration,
        good: impl Fn(&Connection) -> bool,
    ) -> Result<(), ClientError> {
        let mut state = self.inner.connection.clone();
        let done = state.wait_for(|state| {
            let over = matches!(
                state,
                Connection::Replaced | Connection::Revoked | Connection::Stopped { .. }
            );
            over || good(state)
        });
        match tokio::time::timeout(within, done).await {
            Err(_) => Err(ClientError::Timeout),
            Ok(Err(_)) => Err(ClientError::Stopped),
            Ok(Ok(state)) if good(&state) => Ok(()),
            Ok(Ok(state)) => Err(ended(&state)),
        }
    }

    /// The state of the connection now.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.inner.connection.borrow().clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        if self.inner.commands.send(command(reply)).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        Err(self.why_stopped().await)
    }

    /// Why the engine answers no more. It says so before it is gone.
    async fn why_stopped(&self) -> ClientError {
        let mut state = self.inner.connection.clone();
        let stopped = |state: &Connection| matches!(state, Connection::Stopped { .. });
        match state.wait_for(stopped).await.as_deref() {
            Ok(Connection::Stopped { reason }) => ClientError::Failed {
                reason: reason.clone(),
            },
            _ => ClientError::Stopped,
        }
    }

    /// Own account and device.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`].
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.ask(Command::Me).await
    }

    /// Adds a contact by its link. It is stored at once; devices are fetched when connected.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for a link that does not parse, [`ClientError::NameTaken`].
    pub async fn add_contact(&self, link: &str, petname: &str) -> Result<Contact, ClientError> {
        let (link, petname) = (link.to_owned(), petname.to_owned());
        self.ask(|reply| Command::AddContact {
            link,
            petname,
            reply,
        })
        .await
    }

    /// All contacts, by petname.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn contacts(&self) -> Result<Vec<Contact>, ClientError> {
        self.ask(Command::Contacts).await
    }

    /// The safety number of the own account and a contact.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`]; [`ClientError::NotNow`] until the contact's key is known.
    pub async fn safety(&self, who: &str) -> Result<SafetyNumber, ClientError> {
        let who = who.to_owned();
        self.ask(|reply| Command::Safety { who, reply }).await
    }

    /// Remembers that the safety number of a contact was compared and is right.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`].
    pub async fn mark_verified(&self, who: &str) -> Result<(), ClientError> {
        let who = who.to_owned();
        self.ask(|reply| Command::Verify { who, reply }).await
    }

    /// Puts a text for a contact, a group or a conversation id (hex) into the outbox; returns when
    /// it is on disk. It is sent as soon as that is possible, and again until the server
    /// acknowledges it. [`Event::Tick`] tells how far it is.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`], [`ClientError::TooLarge`], [`ClientError::Vault`].
    pub async fn send(&self, to: &str, text: &str) -> Result<Sent, ClientError> {
        let (to, text) = (to.to_owned(), text.to_owned());
        self.ask(|reply| Command::Send { to, text, reply }).await
    }

    /// Waits until a message of this device is at least at `tick`; returns where it is then.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] after `within`.
    pub async fn wait(
        &self,
        sent: Sent,
        tick: Tick,
        within: Duration,
    ) -> Result<Tick, ClientError> {
        let mut events = self.subscribe();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            // The history is the truth; events only say when to look again.
            if let Some(at) = self.tick_of(sent).await?
                && at >= tick
            {
                return Ok(at);
            }
            loop {
                match tokio::time::timeout_at(deadline, events.next()).await {
                    Err(_) => return Err(ClientError::Timeout),
                    Ok(None) => return Err(ClientError::Stopped),
                    Ok(Some(Event::Tick { message, .. })) if message == sent.message => break,
                    Ok(Some(Event::Behind { .. })) => break,
                    Ok(Some(_)) => {}
                }
            }
        }
    }

    async fn tick_of(&self, sent: Sent) -> Result<Option<Tick>, ClientError> {
        let message = sent.message;
        self.ask(|reply| Command::Tick { message, reply }).await
    }

    /// Sends a read receipt for what was not yet marked read in a conversation.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`].
    pub async fn mark_read(&self, conversation: &str) -> Result<(), ClientError> {
        let conversation = conversation.to_owned();
        self.ask(|reply| Command::Read {
            conversation,
            reply,
        })
        .await
    }

    /// Makes a group with contacts, given by petname.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`], [`ClientError::NameTaken`].
    pub async fn create_group(&self, name: &str, who: &[&str]) -> Result<GroupId, ClientError> {
        let name = name.to_owned();
        let members = who.iter().map(|who| (*who).to_owned()).collect();
        self.ask(|reply| Command::CreateGroup {
            name,
            members,
            reply,
        })
        .await
    }

    /// Adds a contact to a group.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`].
    pub async fn invite(&self, group: &str, who: &str) -> Result<(), ClientError> {
        let (group, who) = (group.to_owned(), who.to_owned());
        self.ask(|reply| Command::Invite { group, who, reply })
            .await
    }

    /// Removes an account from a group: as soon as the server is reached, and before anything that is
    /// written after it is sent. [`Client::quiet`] waits for it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`], [`ClientError::NotNow`] if this account may not.
    pub async fn remove(&self, group: &str, who: &str) -> Result<(), ClientError> {
        let (group, who) = (group.to_owned(), who.to_owned());
        self.ask(|reply| Command::Remove { group, who, reply })
            .await
    }

    /// Leaves a conversation for good.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`].
    pub async fn leave(&self, group: &str) -> Result<(), ClientError> {
        let group = group.to_owned();
        self.ask(|reply| Command::Leave { group, reply }).await
    }

    /// All conversations.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn conversations(&self) -> Result<Vec<Conversation>, ClientError> {
        self.ask(Command::Conversations).await
    }

    /// Up to `limit` messages of a conversation with a number above `after`: every message that
    /// this device has shown or would show, each once. `name` as in [`Self::send`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`].
    pub async fn history(
        &self,
        name: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let name = name.to_owned();
        self.ask(|reply| Command::History {
            name,
            after,
            limit,
            reply,
        })
        .await
    }

    /// Messages that arrived and were not marked with [`Self::mark_shown`], oldest first; also
    /// those of earlier runs.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn unshown(&self, limit: u32) -> Result<Vec<Message>, ClientError> {
        self.ask(|reply| Command::Unshown { limit, reply }).await
    }

    /// Remembers that the user has seen these messages (by [`Message::number`]).
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn mark_shown(&self, numbers: Vec<u64>) -> Result<(), ClientError> {
        self.ask(|reply| Command::Shown { numbers, reply }).await
    }

    /// What people have to hear of (messages that are missing or did not arrive, groups that are split
    /// or lost) and that was not marked with [`Self::mark_notices_shown`], oldest first; also of earlier
    /// runs. The same of the same conversation or message is in it once.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn notices(&self) -> Result<Vec<Notice>, ClientError> {
        self.ask(Command::Notices).await
    }

    /// Remembers that the user has seen these notices (by [`Notice::number`]).
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn mark_notices_shown(&self, numbers: Vec<u64>) -> Result<(), ClientError> {
        self.ask(|reply| Command::NoticesShown { numbers, reply })
            .await
    }

    /// Conversations that strangers started and nobody decided on.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`].
    pub async fn requests(&self) -> Result<Vec<Request>, ClientError> {
        self.ask(Command::Requests).await
    }

    /// Decides a request, named by its account id, conversation id (hex) or a start of either.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`], [`ClientError::NameTaken`].
    pub async fn decide(&self, request: &str, decision: Decision) -> Result<(), ClientError> {
        let request = request.to_owned();
        self.ask(|reply| Command::Decide {
            request,
            decision,
            reply,
        })
        .await
    }

    /// Devices of the own account.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`].
    pub async fn devices(&self) -> Result<Vec<Device>, ClientError> {
        self.ask(Command::Devices).await
    }

    /// Signs a new device in by the code that it shows; returns the answer for it. The new list is
    /// on the server when this returns.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotFirstDevice`], [`ClientError::Invalid`], [`ClientError::Server`].
    pub async fn link_device(&self, code: &str) -> Result<String, ClientError> {
        let code = code.to_owned();
        self.ask(|reply| Command::LinkDevice { code, reply }).await
    }

    /// Removes a device from the account, by its id or a start of it.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotFirstDevice`], [`ClientError::Unknown`], [`ClientError::Server`].
    pub async fn revoke_device(&self, device: &str) -> Result<(), ClientError> {
        let device = device.to_owned();
        self.ask(|reply| Command::RevokeDevice { device, reply })
            .await
    }

    /// Gives this device the account key, by the recovery phrase: it can link and revoke then.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] if these are not the words of this account.
    pub async fn enter_phrase(&self, phrase: &str) -> Result<(), ClientError> {
        let phrase = phrase.to_owned();
        self.ask(|reply| Command::EnterPhrase { phrase, reply })
            .await
    }

    /// The recovery phrase: 24 words. Whoever has them has the account.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotFirstDevice`] on a linked device.
    pub async fn recovery_phrase(&self) -> Result<String, ClientError> {
        self.ask(Command::Phrase).await
    }

    /// Waits until the client is caught up and nothing is under way; gives up after `within`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`]; what is left is done whenever the client runs again.
    pub async fn quiet(&self, within: Duration) -> Result<(), ClientError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut events = self.subscribe();
        loop {
            let status = self.status().await?;
            if status.connection == Connection::CaughtUp && !status.busy {
                return Ok(());
            }
            // Answers to requests are no events: look again after a moment, too.
            let moment = tokio::time::Instant::now() + QUIET_LOOK;
            drop(tokio::time::timeout_at(moment.min(deadline), events.next()).await);
            if tokio::time::Instant::now() >= deadline {
                return Err(ClientError::Timeout);
            }
        }
    }

    /// State of the client.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Command::Status).await
    }

    /// Ends the connection and the engine; returns when the vault is closed. What is in the outbox
    /// stays there for the next start.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.wait().await;
    }

    /// Stops as a power cut would: no goodbye, nothing in flight is finished except a transaction
    /// that is being committed. Returns when the vault is closed. For tests.
    pub async fn abort(&self) {
        self.inner.kill.cancel();
        self.inner.tracker.wait().await;
    }
}

/// Why a client that is over is over.
fn ended(state: &Connection) -> ClientError {
    match state {
        Connection::Stopped { reason } => ClientError::Failed {
            reason: reason.clone(),
        },
        Connection::Revoked => ClientError::Handshake("this device was revoked".to_owned()),
        Connection::Connecting
        | Connection::Online
        | Connection::CaughtUp
        | Connection::Offline { .. }
        | Connection::Replaced => {
            ClientError::Handshake("another connection of this device took over".to_owned())
        }
    }
}
