//! One process takes the ports of another, or of the service manager.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Running, error, run, server, until_told};

fn successor(place: &Path, address: SocketAddr) -> Command {
    let mut command = server(place);
    command.args(["--upgrade", "--set"]);
    command.arg(format!("server.listen={address}"));
    command
}

/// Whether somebody serves there: TLS answers even nonsense.
fn is_served(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    stream.read(&mut [0; 1]).unwrap() == 1
}

#[test]
fn a_successor_takes_the_port_and_the_process_before_ends() {
    let place = tempfile::tempdir().unwrap();
    let mut first = Running::start(&mut server(place.path()));
    // It has asked nothing yet, and does not hold up anybody.
    let _idle = TcpStream::connect(first.address).unwrap();

    let mut second = Running::start(&mut successor(place.path(), first.address));
    let mut third = Running::start(&mut successor(place.path(), first.address));

    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    assert_eq!(second.child.wait().unwrap().code(), Some(0));
    assert_eq!(third.address, first.address);
    assert!(is_served(third.address));
    third.signal("TERM");
    assert_eq!(third.child.wait().unwrap().code(), Some(0));
}

#[test]
fn where_no_server_runs_there_is_nothing_to_take_over() {
    let place = tempfile::tempdir().unwrap();

    let output = run(server(place.path()).arg("--upgrade"));

    assert_eq!(output.status.code(), Some(1));
    let told = error(&output);
    assert!(
        told.contains("no server runs on this data directory"),
        "{told}"
    );
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut first = Running::start(&mut server(place.path()));

    let output = run(successor(place.path(), first.address).args(["--domain", "other.example"]));

    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(is_served(first.address));
    let mut second = Running::start(&mut successor(place.path(), first.address));
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    second.signal("TERM");
    assert_eq!(second.child.wait().unwrap().code(), Some(0));
}

/// Waits until `manager` hears of another main process, and ends that.
fn end_main_process(manager: &UnixDatagram) {
    let told = until_told(manager, "MAINPID=");
    let process = told.trim().trim_start_matches("MAINPID=").to_owned();
    until_told(manager, "READY=1");
    let ended = Command::new("kill").args(["-s", "TERM", &process]).status();
    assert!(ended.unwrap().success());
    until_told(manager, "STOPPING=1");
}

fn manager(place: &Path) -> (UnixDatagram, PathBuf) {
    let socket = place.join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    (manager, socket)
}

/// Takes the ports as a successor does, is told that the store is free if it waits for that, and is gone.
fn take_and_go(place: &Path, waits: bool) {
    let path = place.join("commucat-data").join("handover.sock");
    let mut stream = UnixStream::connect(path).unwrap();
    let mut hello = [0; 20];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"commucat-handover 2\n");
    stream.write_all(b"T").unwrap();
    if waits {
        let mut left = [0];
        stream.read_exact(&mut left).unwrap();
        assert_eq!(&left, b"L");
    }
}

#[test]
fn a_server_whose_successor_is_gone_before_it_serves_starts_again() {
    for waits in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let (manager, socket) = manager(place.path());
        let mut first = Running::start(server(place.path()).env("NOTIFY_SOCKET", &socket));
        until_told(&manager, "READY=1");

        take_and_go(place.path(), waits);
        let is_served = is_served(first.address);

        assert!(is_served);
        end_main_process(&manager);
        assert_eq!(first.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_successor_that_cannot_open_the_store_leaves_it_to_the_server_before() {
    let place = tempfile::tempdir().unwrap();
    let (manager, socket) = manager(place.path());
    let mut first = Running::start(server(place.path()).env("NOTIFY_SOCKET", &socket));
    until_told(&manager, "READY=1");

    let nowhere = "storage.url=postgres://127.0.0.1:1/none";
    let output = run(successor(place.path(), first.address).args(["--set", nowhere]));
    let is_served = is_served(first.address);

    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(is_served);
    end_main_process(&manager);
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigusr2_starts_a_successor_and_the_service_manager_follows() {
    let place = tempfile::tempdir().unwrap();
    let (manager, socket) = manager(place.path());
    let mut first = Running::start(server(place.path()).env("NOTIFY_SOCKET", &socket));
    until_told(&manager, "READY=1");

    first.signal("USR2");

    end_main_process(&manager);
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_socket_of_the_service_manager_is_taken() {
    let place = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // systemd hands it over as file 3.
    let script = r#"exec 3<&0 0</dev/null; LISTEN_FDS=1 exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command
        .current_dir(place.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_commucat-server")])
        .args(["--listen", &address.to_string()])
        .stdin(OwnedFd::from(socket));

    let running = Running::start(&mut command);

    assert_eq!(running.address, address);
    assert!(is_served(address));
}
