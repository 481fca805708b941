//! The binary: how it starts, what it says, how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn server(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commucat-server"));
    command
        .current_dir(place)
        .env_clear()
        .args(["--listen", "127.0.0.1:0"]);
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running server; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What it printed until it was ready.
    greeting: String,
    /// Kept open, so that the server can go on printing.
    out: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Self {
            child: command.spawn().unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            greeting: String::new(),
            out: None,
        };
        let mut out = BufReader::new(running.child.stdout.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(
                out.read_line(&mut line).unwrap() > 0,
                "ended: {}",
                running.greeting
            );
            running.greeting.push_str(&line);
            if let Some(ready) = line.strip_prefix("ready ") {
                running.address = ready.split_whitespace().nth(2).unwrap().parse().unwrap();
                running.out = Some(out);
                return running;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_taken_port_ends_the_process_with_its_address() {
    let place = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let output = run(server(place.path()).args(["--listen", &address]));

    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).starts_with(&format!("Error: cannot listen on {address}\n")));
}

#[test]
fn an_unknown_key_ends_the_process_with_the_nearest_one() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("commucat.toml"), "[limits]\nunaked = 5\n").unwrap();

    let output = run(&mut server(place.path()));

    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        error(&output),
        "Error: commucat.toml:2: unknown key `limits.unaked`; did you mean `limits.unacked`?\n"
    );
}

#[test]
fn wrong_use_and_help_have_their_exit_codes() {
    let place = tempfile::tempdir().unwrap();

    let wrong = run(server(place.path()).arg("--nonsense"));
    let help = run(server(place.path()).arg("--help"));

    assert_eq!(wrong.status.code(), Some(64));
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("commucat join")
    );
}

#[test]
fn the_first_start_makes_private_files_and_shows_one_invite() {
    let place = tempfile::tempdir().unwrap();

    let first = Running::start(&mut server(place.path()));
    let greeting = first.greeting.clone();
    drop(first);
    let second = Running::start(&mut server(place.path()));

    assert!(
        greeting.contains("commucat join 'commucat://localhost:"),
        "{greeting}"
    );
    assert!(
        !second.greeting.contains("commucat join"),
        "{}",
        second.greeting
    );
    for (path, mode) in [
        ("commucat-data", 0o700),
        ("commucat-data/keys/keyring.json", 0o600),
        ("commucat-data/tls/key.pem", 0o600),
        ("commucat-data/store.sqlite3", 0o600),
    ] {
        let found = fs::metadata(place.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

#[test]
fn sigterm_ends_the_process_within_its_grace() {
    let place = tempfile::tempdir().unwrap();
    let mut running =
        Running::start(server(place.path()).args(["--set", "server.shutdown_grace=1s"]));
    // A connection that will not end by itself.
    let _held = TcpStream::connect(running.address).unwrap();

    let begun = Instant::now();
    running.signal("TERM");
    let status = running.child.wait().unwrap();

    assert_eq!(status.code(), Some(0));
    // The grace, closing the store, and a busy machine.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn without_connections_sigterm_ends_the_process_at_once() {
    let place = tempfile::tempdir().unwrap();
    let mut running =
        Running::start(server(place.path()).args(["--set", "server.shutdown_grace=5m"]));

    running.signal("TERM");

    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_certificate_of_another_domain_ends_the_process() {
    let place = tempfile::tempdir().unwrap();
    drop(Running::start(&mut server(place.path())));

    // Where the system allows few files, more connections than those bring a warning.
    let few = "--set=limits.connections=100";
    let made = run(server(place.path()).args(["--domain", "other.example", few]));
    let given = run(server(place.path()).args([
        few,
        "--domain=other.example",
        "--data=elsewhere",
        "--set=server.tls_certificate=commucat-data/tls/certificate.pem",
        "--set=server.tls_key=commucat-data/tls/key.pem",
    ]));

    for output in [made, given] {
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            error(&output).replace("./", ""),
            "Error: the TLS certificate cannot be used\n  caused by: \
             commucat-data/tls/certificate.pem is not for `other.example`, the domain of this \
             server, but for: localhost, 127.0.0.1, ::1\n"
        );
    }
}

/// The next message to the service manager.
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// Waits for a message that begins so, past others.
pub(crate) fn until_told(manager: &UnixDatagram, beginning: &str) -> String {
    loop {
        let message = told(manager);
        if message.starts_with(beginning) {
            return message;
        }
    }
}

#[test]
fn the_service_manager_is_told_of_every_step() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut command = server(place.path());
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "100000");

    let mut running = Running::start(&mut command);

    until_told(&manager, "READY=1");
    for _ in 0..3 {
        until_told(&manager, "WATCHDOG=1");
    }
    running.signal("HUP");
    let reloading = until_told(&manager, "RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    until_told(&manager, "READY=1");
    running.signal("TERM");
    until_told(&manager, "STOPPING=1");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sighup_does_not_end_the_process() {
    let place = tempfile::tempdir().unwrap();
    let mut running = Running::start(&mut server(place.path()));

    running.signal("HUP");
    running.signal("TERM");

    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let _first = Running::start(&mut server(place.path()));

    let second = run(server(place.path()).args(["--set", "storage.lock_wait=0s"]));

    assert_eq!(second.status.code(), Some(1));
    assert!(
        error(&second).contains("another process has the store open"),
        "{}",
        error(&second)
    );
}

#[test]
fn check_names_what_is_wrong_and_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    drop(Running::start(&mut server(place.path())));

    let good = run(server(place.path()).arg("--check"));
    let bad = run(server(place.path()).args(["--check", "--set", "server.endpoint=other.example"]));
    let redis = "storage.redis_url=redis+cluster://one:port";
    let no_redis = run(server(place.path()).args(["--check", "--set", redis]));
    let fresh = tempfile::tempdir().unwrap();
    let empty = run(server(fresh.path()).arg("--check"));

    assert_eq!(
        good.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&good.stdout)
    );
    let text = String::from_utf8(bad.stdout).unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text.contains("wrong  certificate does not name other.example\n"),
        "{text}"
    );
    let text = String::from_utf8(no_redis.stdout).unwrap();
    assert_eq!(no_redis.status.code(), Some(1));
    assert!(text.contains("wrong  address of Redis: "), "{text}");
    assert_eq!(empty.status.code(), Some(0));
    assert_eq!(fs::read_dir(fresh.path()).unwrap().count(), 0);
}
