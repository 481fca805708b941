//! The way to the store: through the server that has it open, or directly.

use commucat_admin::{Answer, Client, Executor, Offline, Request, Response, Site};
use commucat_config::Config;
use commucat_crypto::keyring::Keyring;
use commucat_ledger::Worker;
use commucat_storage::{Migrations, OpenError, Store};

use crate::clock;
use crate::report::Report;
use crate::site;

/// One of the two ways.
pub(crate) enum Door {
    /// A server runs.
    Server(Client),
    /// None runs.
    Direct(Box<Direct>),
}

/// The store, opened by this process.
pub(crate) struct Direct {
    executor: Executor<Offline>,
    store: Store,
    worker: Worker,
}

impl Door {
    /// Finds the server's socket, or opens the store.
    ///
    /// # Errors
    ///
    /// [`Report`].
    pub(crate) async fn open(config: &Config) -> Result<Self, Report> {
        let data = &config.server.data;
        if let Some(client) = Client::connect(data).await? {
            return Ok(Self::Server(client));
        }
        // Before the store, which would be made: whoever names a wrong directory should hear so.
        Keyring::open(&config.keys_path(), &config.server.domain)?;
        match site::open_store(config, Migrations::Refuse).await {
            Ok(store) => Ok(Self::Direct(Box::new(Direct::new(config, store)?))),
            // A server may have come up meanwhile.
            Err(OpenError::InUse) => match Client::connect(data).await? {
                Some(client) => Ok(Self::Server(client)),
                None => Err(OpenError::InUse.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a server answers.
    pub(crate) const fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Has `request` carried out.
    ///
    /// # Errors
    ///
    /// [`Report`].
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Answer, Report> {
        let response = match self {
            Self::Server(client) => client.ask(&request).await?,
            Self::Direct(direct) => direct.executor.execute(request, clock::now()).await,
        };
        match response {
            Response::Done(answer) => Ok(answer),
            Response::Failed(failure) => Err(failure.into()),
        }
    }

    /// Lets go of the store.
    pub(crate) async fn close(self) {
        if let Self::Direct(direct) = self {
            direct.store.close().await;
            direct.worker.stop().await;
        }
    }
}

impl Direct {
    pub(crate) fn new(config: &Config, store: Store) -> Result<Self, Report> {
        let (ledger, worker) = site::open_ledger(config)?;
        let site = Site {
            domain: config.server.domain.clone(),
            endpoint: config.endpoint(),
            keys: config.keys_path(),
            store: store.clone(),
            ledger,
        };
        Ok(Self {
            executor: Executor::new(site, Offline),
            store,
            worker,
        })
    }
}

/// The server's answer to another question than ours.
pub(crate) fn other_answer() -> Report {
    Report::defect("the answer does not fit the request")
}
