//! Carries requests out on the store, the keys and the ledger.

mod backups;
mod devices;
mod invites;
mod keys;
mod peers;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use commucat_crypto::keyring::KeyringError;
use commucat_ledger::{Ledger, RecordError};
use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;
use commucat_storage::{BackupError, Store, StoreError};

use crate::request::Request;
use crate::response::{Answer, Failure, FailureKind, LedgerState, Node, Nodes, Response, Status};

/// Entries of one page, so that a response stays below [`LINE_BYTES_MAX`](crate::LINE_BYTES_MAX):
/// the longest has some 250 bytes.
const PAGE: usize = 200;

/// What a server is made of, as far as its operator changes it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its domain.
    pub domain: Domain,
    /// Host and port that invites name.
    pub endpoint: Domain,
    /// The directory of the keys.
    pub keys: PathBuf,
    /// The store.
    pub store: Store,
    /// Where changes of keys are recorded.
    pub ledger: Ledger,
}

/// What a running server has in memory and must be told.
pub trait Live: Send + Sync {
    /// `device` is shut out: its session ends now.
    fn device_revoked(&self, device: &commucat_storage::Device);

    /// The nodes of the domain that live, this one first; none if it is the only one.
    fn nodes(&self) -> Vec<Node>;

    /// Lets a node end in order, this one if none is named; `false` if no such node is known.
    fn drain(&self, node: Option<&str>) -> bool;

    /// What the operator says of another domain has changed.
    fn peer_changed(&self, peer: &Domain);

    /// Sends another domain an empty batch, signed, and waits for its signed answer; how long that
    /// took.
    ///
    /// # Errors
    ///
    /// What did not work, outermost first.
    fn ping_peer(&self, peer: &Domain) -> impl Future<Output = Result<Duration, String>> + Send;

    /// The files of the keys changed.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the server goes on with the old ones.
    fn keys_changed(&self) -> Result<(), KeyringError>;
}

/// No server runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offline;

impl Live for Offline {
    fn device_revoked(&self, _: &commucat_storage::Device) {}

    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    fn drain(&self, _: Option<&str>) -> bool {
        false
    }

    fn peer_changed(&self, _: &Domain) {}

    async fn ping_peer(&self, _: &Domain) -> Result<Duration, String> {
        Err("no server runs here".to_owned())
    }

    fn keys_changed(&self) -> Result<(), KeyringError> {
        Ok(())
    }
}

/// Carries requests out.
pub struct Executor<L> {
    site: Site,
    live: L,
    backups: backups::Backups,
}

impl<L> fmt::Debug for Executor<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
enum ExecuteError {
    #[error("no invite of that name")]
    NoInvite,
    #[error("more than one invite has a name that begins like that")]
    ManyInvites,
    #[error("no device of that id")]
    NoDevice,
    #[error("no such node is heard, or no server runs here")]
    NoNode,
    #[error("no such domain is known here")]
    NoPeer,
    #[error("the domain did not answer: {0}")]
    NoPing(String),
    #[error("another backup is being made")]
    BackupRuns,
    #[error("no backup is being made")]
    NoBackup,
    #[error("no backup was made")]
    Backup(#[source] BackupError),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("the keys cannot be used")]
    Keys(#[from] KeyringError),
    #[error("the server goes on with its old keys")]
    NotReloaded(#[source] KeyringError),
    #[error("a task of the process was stopped")]
    Stopped,
    #[error("the store did not carry it out")]
    Store(#[from] StoreError),
    #[error("the change was made, but the ledger did not record it")]
    Ledger(#[from] RecordError),
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        let kind = match error {
            ExecuteError::NoInvite => FailureKind::NoInvite,
            ExecuteError::NoDevice => FailureKind::NoDevice,
            ExecuteError::NoNode => FailureKind::NoNode,
            ExecuteError::NoPeer => FailureKind::NoPeer,
            ExecuteError::NoPing(_) => FailureKind::NoPing,
            ExecuteError::BackupRuns | ExecuteError::NoBackup => FailureKind::Backup,
            ExecuteError::Backup(BackupError::NotEmbedded) => FailureKind::NotEmbedded,
            ExecuteError::ManyInvites => FailureKind::Ambiguous,
            ExecuteError::Invalid(_) => FailureKind::Invalid,
            ExecuteError::Keys(_) | ExecuteError::NotReloaded(_) => FailureKind::Keys,
            ExecuteError::Random(_)
            | ExecuteError::Stopped
            | ExecuteError::Backup(BackupError::File(_) | BackupError::Store(_))
            | ExecuteError::Store(_)
            | ExecuteError::Ledger(_) => FailureKind::Storage,
        };
        Self::of(kind, &error)
    }
}

impl<L: Live> Executor<L> {
    /// An executor for `site`.
    pub fn new(site: Site, live: L) -> Self {
        Self {
            site,
            live,
            backups: backups::Backups::default(),
        }
    }

    /// Carries one request out.
    ///
    /// # Cancel safety
    ///
    /// What was begun may take effect even if the future is dropped.
    pub async fn execute(&self, request: Request, now: Timestamp) -> Response {
        match self.carry_out(request, now).await {
            Ok(answer) => Response::Done(answer),
            Err(error) => Response::Failed(error.into()),
        }
    }

    async fn carry_out(&self, request: Request, now: Timestamp) -> Result<Answer, ExecuteError> {
        match request {
            Request::Health => {
                self.site.store.ping().await?;
                Ok(Answer::Healthy)
            }
            Request::CheckStore => {
                self.site.store.check_integrity().await?;
                Ok(Answer::Healthy)
            }
            Request::Status => self.status().await.map(Answer::Status),
            Request::CreateInvite {
                uses,
                lasts_seconds,
            } => self
                .create_invite(uses, lasts_seconds, now)
                .await
                .map(Answer::Created),
            Request::ListInvites { skip } => self.list_invites(skip).await.map(Answer::Invites),
            Request::RevokeInvite { invite } => self
                .revoke_invite(invite.as_str())
                .await
                .map(Answer::InviteRevoked),
            Request::ListDevices { after } => {
                self.list_devices(after.as_ref()).await.map(Answer::Devices)
            }
            Request::ShowDevice { device } => {
                self.show_device(&device, now).await.map(Answer::Device)
            }
            Request::RevokeDevice { device } => self
                .revoke_device(&device, now)
                .await
                .map(Answer::DeviceRevoked),
            Request::ListNodes => Ok(Answer::Nodes(Nodes {
                nodes: self.live.nodes(),
            })),
            Request::DrainNode { node } => {
                if self.live.drain(node.as_deref()) {
                    Ok(Answer::Draining)
                } else {
                    Err(ExecuteError::NoNode)
                }
            }
            Request::ListPeers { after } => {
                self.list_peers(after.as_deref()).await.map(Answer::Peers)
            }
            Request::ShowPeer { domain } => self.show_peer(&domain).await.map(Answer::Peer),
            Request::AddPeer {
                domain,
                endpoint,
                key,
            } => self
                .add_peer(&domain, endpoint.as_deref(), key.as_deref())
                .await
                .map(Answer::Peer),
            Request::SetPeer { domain, standing } => {
                self.set_peer(&domain, standing).await.map(Answer::Peer)
            }
            Request::RemovePeer { domain } => {
                self.remove_peer(&domain).await.map(Answer::PeerRemoved)
            }
            Request::PingPeer { domain } => self.ping_peer(&domain).await.map(Answer::Pinged),
            Request::Backup { step } => self.backup(step, now).await,
            Request::RotateKeys { keys } => self.rotate_keys(keys, now).await.map(Answer::Keys),
        }
    }

    async fn status(&self) -> Result<Status, ExecuteError> {
        let ledger = self.site.ledger.status();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: self.site.domain.as_str().to_owned(),
            endpoint: self.site.endpoint.as_str().to_owned(),
            schema_version: self.site.store.schema_version(),
            corrupt_rows: self.site.store.counters().corrupt,
            keys: self.keys().await?,
            ledger: LedgerState {
                kept: ledger.kept,
                failures: ledger.failures,
                failing: ledger.failing,
            },
        })
    }
}

#[cfg(test)]
mod tests;
