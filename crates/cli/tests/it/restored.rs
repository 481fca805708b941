//! `store restored`, on a database that PostgreSQL's own tools took and put back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use commucat_services::{Database, Postgres};

use crate::world::{Run, World};

/// Longest that a session takes to be gone after its client has ended.
const GONE_WAIT: Duration = Duration::from_secs(20);

/// The program on the database.
fn on(world: &World, database: &Database<'_>, args: &[&str]) -> Run {
    let mut command = world.command(args);
    command.env("COMMUCAT_STORAGE_URL", database.url());
    Run::of(&command.output().unwrap())
}

/// The same when the sessions of what ran before are gone.
fn alone(world: &World, database: &Database<'_>, args: &[&str]) -> Run {
    let deadline = Instant::now() + GONE_WAIT;
    loop {
        let run = on(world, database, args);
        let is_alone = !run.stderr.contains("other sessions");
        if is_alone || Instant::now() > deadline {
            return run;
        }
    }
}

/// A session of somebody else, who is connected when this returns.
fn session(cluster: &Postgres, database: &Database<'_>) -> Child {
    let mut command = cluster.program("psql");
    command.args(["--no-psqlrc", "--tuples-only", "--dbname"]);
    command.arg(database.url());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"SELECT 1;\n")
        .unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "1");
    child
}

#[test]
fn a_database_that_was_put_back_is_readied_only_with_consent_and_only_while_nobody_is_on_it() {
    let world = World::made();
    let cluster = Postgres::shared().unwrap();
    let first = cluster.database().unwrap();
    assert_eq!(on(&world, &first, &["migrate"]).code, 0);
    first
        .sql("INSERT INTO queues (queue, next_position) VALUES (gen_random_uuid(), 7)")
        .unwrap();
    let dump = world.path().join("dump");
    let mut dumps = cluster.program("pg_dump");
    dumps.arg("-Fc").arg("-f").arg(&dump).arg(first.url());
    assert!(dumps.status().unwrap().success());
    let again = cluster.database().unwrap();
    let mut restores = cluster.program("pg_restore");
    restores.arg("--dbname").arg(again.url()).arg(&dump);
    assert!(restores.status().unwrap().success());
    let told = || {
        let told = "SELECT next_position > 1000, gap_position IS NOT NULL FROM queues";
        again.sql(told).unwrap().trim().to_owned()
    };

    let asked = alone(&world, &again, &["store", "restored"]);
    let after_asking = told();
    let mut other = session(cluster, &again);
    let beside = on(&world, &again, &["store", "restored", "--yes"]);
    let after_refusal = told();
    other.kill().unwrap();
    other.wait().unwrap();
    let done = alone(&world, &again, &["store", "restored", "--yes"]);
    let after = told();

    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert!(
        asked.stdout.contains("Nothing was changed"),
        "{}",
        asked.stdout
    );
    assert_eq!(beside.code, 1);
    assert!(
        beside.stderr.contains("other sessions"),
        "{}",
        beside.stderr
    );
    assert!(
        beside.stderr.contains("Hint: stop all servers"),
        "{}",
        beside.stderr
    );
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("is ready"), "{}", done.stdout);
    assert_eq!([after_asking, after_refusal], ["f|f", "f|f"]);
    assert_eq!(after, "t|t");
}

#[test]
fn an_embedded_store_is_none_of_its_business() {
    let world = World::made();

    let run = world.run(&["store", "restored", "--yes"]);

    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("is embedded"), "{}", run.stderr);
    assert!(
        run.stderr.contains("commucat-cli restore"),
        "{}",
        run.stderr
    );
}
