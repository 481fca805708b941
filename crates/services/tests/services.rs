//! The services start, end, pause and vanish as they say.

use std::net::TcpStream;
use std::time::Duration;

use commucat_services::postgres::{Options, Stop};
use commucat_services::{Postgres, Redis, port, redis};

#[test]
fn a_cluster_survives_every_way_to_end_it() {
    let cluster = Postgres::start(&Options::default()).unwrap();
    let database = cluster.database().unwrap();
    database.sql("CREATE TABLE kept (n int)").unwrap();

    for round in 1..=4 {
        database
            .sql(&format!("INSERT INTO kept VALUES ({round})"))
            .unwrap();
        match round {
            1 => cluster.restart().unwrap(),
            2 => {
                cluster.stop(Stop::Immediate).unwrap();
                cluster.resurrect().unwrap();
            }
            3 => {
                cluster.kill().unwrap();
                cluster.resurrect().unwrap();
            }
            _ => assert!(cluster.cut_connections().is_ok()),
        }
    }

    assert_eq!(
        database.sql("SELECT sum(n) FROM kept").unwrap().trim(),
        "10"
    );
    assert!(database.dump().unwrap().contains("CREATE TABLE"));
    assert!(cluster.cpu().unwrap() > Duration::ZERO);
    let settings = database.sql("SHOW fsync; SHOW synchronous_commit").unwrap();
    assert_eq!(settings, "on\non\n");
}

#[test]
fn a_paused_cluster_answers_once_it_goes_on() {
    let cluster = Postgres::start(&Options::default()).unwrap();
    cluster.pause().unwrap();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| cluster.sql("postgres", "SELECT 1"));
        let stream = TcpStream::connect(("127.0.0.1", cluster.port()));
        assert!(stream.is_ok(), "the listening socket stays");
        assert!(!asking.is_finished());
        cluster.resume().unwrap();
        assert_eq!(asking.join().unwrap().unwrap().trim(), "1");
    });
}

#[test]
fn a_redis_server_is_empty_after_every_end() {
    let server = Redis::start(&[]).unwrap();
    let key = format!("{}key", redis::prefix().unwrap());
    for round in 0..3 {
        assert_eq!(server.ask(&format!("SET {key} value")).unwrap(), "+OK");
        match round {
            0 => server.restart().unwrap(),
            1 => {
                server.kill().unwrap();
                server.resurrect().unwrap();
            }
            _ => assert_eq!(server.ask("FLUSHALL").unwrap(), "+OK"),
        }
        assert_eq!(server.ask(&format!("GET {key}")).unwrap(), "$-1");
    }
    assert!(server.pid().is_some());
}

#[test]
fn nothing_is_left_of_what_is_dropped() {
    let cluster = Postgres::start(&Options::default()).unwrap();
    let server = Redis::start(&[]).unwrap();
    let (data, pids) = (cluster.data(), [cluster.pid(), server.pid()]);
    let ports = [cluster.port(), server.port()];

    drop((cluster, server));

    assert!(!data.parent().unwrap().exists());
    for pid in pids.map(Option::unwrap) {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        assert!(
            !command.contains("postgres") && !command.contains("redis"),
            "{command}"
        );
    }
    assert!(ports.iter().all(|port| !port::is_taken(*port)));
}
