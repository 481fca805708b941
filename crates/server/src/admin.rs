//! The operator's door: `commucat-cli` asks over a socket in the data directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use commucat_admin::{Connection, Executor, Listener, Live, Node, Site};
use commucat_config::Config;
use commucat_crypto::keyring::KeyringError;
use commucat_ledger::Ledger;
use commucat_proto::id::Domain;
use commucat_storage::{Device, Store};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::api::{Public, describe};
use crate::chain::chain;
use crate::clock;
use crate::cluster::{Cluster, Status};
use crate::federation::PeerClient;
use crate::keys::Keys;
use crate::peers::Peers;

/// Connections at once; another one waits.
const CONNECTIONS_MAX: usize = 16;

/// Pause after an accept that failed, for want of file handles mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the door needs.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) ledger: Ledger,
    pub(crate) accounts: Accounts,
    pub(crate) keys: Keys,
    pub(crate) public: Public,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) client: PeerClient,
    pub(crate) peers: Peers,
    /// Cancelled, the server ends in order.
    pub(crate) drain: CancellationToken,
}

/// What a running server has in memory.
struct Running {
    config: Arc<Config>,
    accounts: Accounts,
    keys: Keys,
    public: Public,
    cluster: Option<Cluster>,
    client: PeerClient,
    peers: Peers,
    drain: CancellationToken,
}

impl Live for Running {
    fn device_revoked(&self, device: &Device) {
        self.accounts.revoked(&device.queue);
    }

    fn nodes(&self) -> Vec<Node> {
        let own_keys = self.cluster.as_ref().map(Cluster::keys_mark);
        let node = |status: Status| Node {
            same_keys: own_keys == Some(status.keys),
            name: status.name,
            version: status.version,
            sessions: status.sessions,
            draining: status.draining,
        };
        let nodes = self.cluster.iter().flat_map(Cluster::nodes);
        nodes.map(node).collect()
    }

    fn drain(&self, node: Option<&str>) -> bool {
        match (node, &self.cluster) {
            (None, _) => {
                self.drain.cancel();
                true
            }
            (Some(name), Some(cluster)) => cluster.ask_to_drain(name),
            (Some(_), None) => false,
        }
    }

    fn peer_changed(&self, peer: &Domain) {
        self.client.changed(peer);
        self.peers.heard(peer);
    }

    async fn ping_peer(&self, peer: &Domain) -> Result<Duration, String> {
        let pinged = self.client.ping(peer).await;
        pinged.map_err(|error| chain(&error).to_string())
    }

    fn keys_changed(&self) -> Result<(), KeyringError> {
        self.keys.reload_recorded()?;
        let known = describe(&self.config, self.keys.statement(), self.keys.chain());
        self.public.announce(&known);
        Ok(())
    }
}

/// Makes the socket. Without it the server goes on: only `commucat-cli` needs it.
pub(crate) fn open(data: &Path) -> Option<Listener> {
    Listener::bind(data)
        .inspect_err(|error| {
            let error = chain(error);
            tracing::error!(%error, "commucat-cli cannot reach this server");
        })
        .ok()
}

/// Answers the operator until `stop`.
pub(crate) async fn run(listener: Option<Listener>, parts: Parts, stop: CancellationToken) {
    let Some(listener) = listener else {
        return;
    };
    let executor = Arc::new(executor(parts));
    let (places, tracker) = (
        Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        TaskTracker::new(),
    );
    loop {
        // Never closed, so that there is always a place to come.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                let (executor, stop) = (Arc::clone(&executor), stop.clone());
                tracker.spawn(async move {
                    serve(connection, &executor, &stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "an operator's connection was not accepted");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    tracker.close();
    tracker.wait().await;
}

fn executor(parts: Parts) -> Executor<Running> {
    let Parts {
        config,
        store,
        ledger,
        accounts,
        keys,
        public,
        cluster,
        client,
        peers,
        drain,
    } = parts;
    let site = Site {
        domain: config.server.domain.clone(),
        endpoint: config.endpoint(),
        keys: config.keys_path(),
        store,
        ledger,
    };
    Executor::new(
        site,
        Running {
            config,
            accounts,
            keys,
            public,
            cluster,
            client,
            peers,
            drain,
        },
    )
}

async fn serve(mut connection: Connection, executor: &Executor<Running>, stop: &CancellationToken) {
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = connection.receive() => received,
        };
        let request = match received {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(error = %chain(&error), "an operator's connection ended");
                return;
            }
        };
        // The ledger may keep a change waiting for as long as it fails; ending goes first.
        let response = tokio::select! {
            () = stop.cancelled() => return,
            response = executor.execute(request, clock::now()) => response,
        };
        if let Err(error) = connection.answer(&response).await {
            tracing::debug!(error = %chain(&error), "an operator did not wait for the answer");
            return;
        }
    }
}
