//! The conformance suite on PostgreSQL, a database for each test; and what only PostgreSQL promises.

use commucat_services::{Database, Postgres};

use crate::conformance::{LIMITS, OUTBOX_LIMITS, run_conformance};
use crate::{Location, Options, Store};

async fn fresh() -> (Store, Database<'static>) {
    let database = Postgres::shared().unwrap().database().unwrap();
    let location = Location::Postgres {
        url: database.url().parse().unwrap(),
    };
    let options = Options {
        queues: LIMITS,
        outbox: OUTBOX_LIMITS,
        ..Options::default()
    };
    (Store::open(location, options).await.unwrap(), database)
}

run_conformance!(super::fresh);
