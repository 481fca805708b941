//! How PostgreSQL is spoken to, and which one is refused. The TLS is that of a real server.

use std::path::Path;

use commucat_services::postgres::{Options as Setup, Postgres};
use commucat_storage::{Location, OpenError, Options, Store};
use tempfile::TempDir;

/// Nobody is let in without TLS.
const ENCRYPTED_ONLY: &str = "hostssl all all 127.0.0.1/32 trust\n";

/// A cluster with a certificate of an authority of its own.
struct Encrypted {
    postgres: Postgres,
    directory: TempDir,
}

impl Encrypted {
    /// Its certificate names `host`.
    fn start(host: &str) -> Self {
        let authority = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority).unwrap();
        let issuer = rcgen::Issuer::new(params, authority);
        let own = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap();

        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), root.pem()).unwrap();
        let setup = Setup {
            tls: Some((certificate.pem(), own.serialize_pem())),
            access: Some(ENCRYPTED_ONLY.to_owned()),
            ..Setup::default()
        };
        Self {
            postgres: Postgres::start(&setup).unwrap(),
            directory,
        }
    }

    fn authorities(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.pem")
    }
}

async fn open(url: &str) -> Result<Store, OpenError> {
    let location = Location::Postgres {
        url: url.parse().unwrap(),
    };
    Store::open(location, Options::default()).await
}

fn verified(url: &str, authorities: &Path) -> String {
    let file = authorities.display().to_string().replace('/', "%2F");
    format!("{url}?sslmode=verify-full&sslrootcert={file}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_encrypted_where_the_database_wants_it() {
    let server = Encrypted::start("127.0.0.1");
    let database = server.postgres.database().unwrap();
    let url = database.url();

    let plain = open(&format!("{url}?sslmode=disable")).await;
    let mut opened = Vec::new();
    for options in ["", "?sslmode=prefer", "?sslmode=require"] {
        let store = open(&format!("{url}{options}")).await.unwrap();
        store.ping().await.unwrap();
        opened.push(store);
    }
    let counted = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl
        JOIN pg_stat_activity USING (pid) WHERE application_name = 'commucat'";
    let counted = database.sql(counted).unwrap();

    assert!(matches!(plain, Err(OpenError::Database(_))));
    let (encrypted, all) = counted.trim().split_once('|').unwrap();
    assert_eq!(encrypted, all);
    assert_ne!(all, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_full_believes_only_a_known_authority_and_the_right_name() {
    let (server, other) = (
        Encrypted::start("127.0.0.1"),
        Encrypted::start("db.example"),
    );
    let database = server.postgres.database().unwrap();
    let misnamed = other.postgres.database().unwrap();

    let right = open(&verified(&database.url(), &server.authorities())).await;
    let stranger = open(&verified(&database.url(), &other.authorities())).await;
    let misnamed = open(&verified(&misnamed.url(), &other.authorities())).await;

    right.unwrap().ping().await.unwrap();
    assert!(matches!(stranger, Err(OpenError::Database(_))));
    assert!(matches!(misnamed, Err(OpenError::Database(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn require_speaks_to_no_database_without_tls() {
    let database = Postgres::shared().unwrap().database().unwrap();

    let opened = open(&format!("{}?sslmode=require", database.url())).await;

    assert!(matches!(opened, Err(OpenError::Database(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_lose_what_it_has_committed_is_refused() {
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let setup = Setup {
            settings: vec![(setting.to_owned(), "off".to_owned())],
            ..Setup::default()
        };
        let postgres = Postgres::start(&setup).unwrap();
        let database = postgres.database().unwrap();

        let refused = open(&database.url()).await.map(drop);

        let Err(OpenError::Unsafe { setting: named, .. }) = refused else {
            panic!("{setting} = off: {refused:?}");
        };
        assert_eq!(named, setting);
    }
}
