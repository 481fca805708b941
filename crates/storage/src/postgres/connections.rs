//! Pools of connections, each of them checked and set up, and the thread that they live on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::TRANSACTION_WAIT;
use super::fault::{Fault, within};
use super::tls;
use super::url::PostgresUrl;
use crate::OpenError;

/// Connections beside those of readers, for transactions that change something.
const WRITERS: usize = 4;
/// Connections of the tasks that merge: one each, apart from the others, so that no crowd of readers
/// keeps a message waiting.
const MERGERS: usize = 2;
/// Longest wait for a free connection or a new one.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// What every session is told.
///
/// The tables of waiting entries are empty now and full in a minute, so what the planner believes of
/// their sizes is never true: it is left one way to each row, by an index. Limits of time are a little
/// below [`TRANSACTION_WAIT`].
const SESSION: &str = "SET statement_timeout = '7s';
SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '20s';
SET default_transaction_isolation = 'read committed';
SET client_min_messages = 'error';
SET plan_cache_mode = 'force_generic_plan';
SET jit = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;";

/// Settings that durability depends on.
const DURABILITY: &str = "SELECT current_setting('server_version_num')::integer,
    current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names') <> ''";

/// PostgreSQL 12.
const OLDEST: i32 = 120_000;

/// The pools, and the runtime that drives their connections.
pub(super) struct Connections {
    general: Pool,
    mergers: Pool,
    connector: Connector,
    config: tokio_postgres::Config,
    /// Taken when this is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    handle: Handle,
}

impl Connections {
    pub(super) fn new(url: &PostgresUrl, readers: usize) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("commucat-store")
            .enable_all()
            .build()
            .map_err(OpenError::Directory)?;
        let handle = runtime.handle().clone();
        let connector = Connector {
            tls: tls::connector(&url.tls)?,
            handle: handle.clone(),
        };
        let pool = |size: usize| {
            let connect = connector.clone();
            let config = ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            };
            Pool::builder(Manager::from_connect(
                (*url.config).clone(),
                connect,
                config,
            ))
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(POOL_WAIT))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    let made = set_up(client).await;
                    made.map_err(|fault| match fault {
                        Fault::Postgres(error) => HookError::Backend(error),
                        Fault::Store(_) | Fault::Unsafe(_) => HookError::message("unsafe"),
                    })
                })
            }))
            .build()
            .map_err(|_| OpenError::UnknownSchema)
        };
        Ok(Self {
            general: pool(readers.clamp(1, 64) + WRITERS)?,
            mergers: pool(MERGERS)?,
            connector,
            config: (*url.config).clone(),
            runtime: Some(runtime),
            handle,
        })
    }

    /// Finds out whether the database can be used, and if not, why.
    pub(super) async fn check(&self) -> Result<(), OpenError> {
        let checking = async {
            let (client, task) = self.connector.connect(&self.config).await?;
            let checked = set_up(&client).await;
            task.abort();
            checked
        };
        Ok(within(TRANSACTION_WAIT, checking).await?)
    }

    /// Where tasks of the store run.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A connection.
    pub(super) async fn get(&self) -> Result<Object, Fault> {
        Ok(self.general.get().await?)
    }

    /// A connection for a task that merges.
    pub(super) async fn get_for_merger(&self) -> Result<Object, Fault> {
        Ok(self.mergers.get().await?)
    }

    pub(super) fn close(&self) {
        self.general.close();
        self.mergers.close();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This may be within another runtime, where nothing may block.
            runtime.shutdown_background();
        }
    }
}

/// Makes connections whose sockets and tasks belong to the store's runtime, whoever asks for them.
#[derive(Clone)]
struct Connector {
    tls: MakeRustlsConnect,
    handle: Handle,
}

type Connecting<'a> = Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;

impl Connect for Connector {
    fn connect(&self, config: &tokio_postgres::Config) -> Connecting<'_> {
        let (config, tls) = (config.clone(), self.tls.clone());
        let connecting = Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            let driving = self.handle.spawn(async move {
                // Whoever waits for an answer is told; and it is not asked again.
                connection.await.ok();
            });
            Ok((client, driving))
        });
        Box::pin(Within {
            handle: self.handle.clone(),
            work: connecting,
        })
    }
}

/// Polls a future inside the store's runtime.
struct Within<'a> {
    handle: Handle,
    work: Connecting<'a>,
}

impl Future for Within<'_> {
    type Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle.clone();
        let _inside = handle.enter();
        self.work.as_mut().poll(context)
    }
}

async fn set_up(client: &Client) -> Result<(), Fault> {
    let row = client.query_one(DURABILITY, &[]).await?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST {
        let found = u32::try_from(version / 10_000).unwrap_or(0);
        return Err(Fault::Unsafe(OpenError::TooOld { found }));
    }
    let has_standby: bool = row.try_get(4)?;
    for (column, setting) in [
        (1, "fsync"),
        (2, "full_page_writes"),
        (3, "synchronous_commit"),
    ] {
        let value: &str = row.try_get(column)?;
        if value == "off" || (value == "local" && has_standby) {
            return Err(Fault::Unsafe(OpenError::Unsafe {
                setting,
                value: value.to_owned(),
            }));
        }
    }
    Ok(client.batch_execute(SESSION).await?)
}
