//! The commands while a server has the store: the real one, if it was built.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::diagnose::free_port;
use crate::world::World;

/// A server that is stopped at the end of a test.
struct Server {
    child: Child,
    listen: String,
}

/// A program of another crate, beside this test's own.
fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let directory = own.parent().unwrap().parent().unwrap();
    let path = directory.join(name);
    if path.exists() {
        return Some(path);
    }
    // `./test` builds all programs first, so that CI never passes by skipping.
    assert!(std::env::var_os("CI").is_none(), "{name} is not built");
    eprintln!("skipped: {name} is not built");
    None
}

impl Server {
    fn start(world: &World) -> Option<Self> {
        let listen = format!("server.listen=127.0.0.1:{}", free_port());
        let mut child = Command::new(program("commucat-server")?)
            .current_dir(world.path())
            .env_clear()
            .args(["--data", "data", "--set", &listen, "--log", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The line that says that it is there; before that the socket may not be there either.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        for line in lines {
            said.push_str(&line.unwrap());
            if said.contains("127.0.0.1:") {
                break;
            }
        }
        let server = Self { child, listen };
        server.wait_for_socket(world);
        Some(server)
    }

    fn wait_for_socket(&self, world: &World) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !world.data().join("admin.sock").exists() {
            assert!(Instant::now() < deadline, "the server opened no socket");
            std::thread::yield_now();
        }
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--set", self.listen.as_str()], args].concat()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn invites_and_keys_go_through_the_running_server() {
    let world = World::made();
    let Some(server) = Server::start(&world) else {
        return;
    };

    let made = world.json(&server.args(&["invite", "create", "--uses", "2"]));
    let listed = world.json(&server.args(&["invite", "list"]));
    let rotated = world.json(&server.args(&["rotate-keys"]));
    let devices = world.json(&server.args(&["device", "list"]));
    let migrated = world.run(&server.args(&["migrate"]));

    let port = server.listen.rsplit(':').next().unwrap();
    assert!(
        made["link"]
            .as_str()
            .unwrap()
            .contains(&format!("//localhost:{port}/")),
        "{made}"
    );
    assert_eq!(listed["invites"].as_array().unwrap().len(), 2);
    assert_eq!(rotated["noise_keys"].as_array().unwrap().len(), 2);
    assert_eq!(devices["devices"], serde_json::json!([]));
    assert_eq!(migrated.code, 1);
    insta::assert_snapshot!(migrated.stderr);
}

#[test]
fn diagnose_shakes_hands_with_the_running_server() {
    let world = World::made();
    let Some(server) = Server::start(&world) else {
        return;
    };
    // The announced keys are the rotated ones at once.
    world.json(&server.args(&["rotate-keys"]));

    let text = world.stdout(&server.args(&["diagnose"]));

    let port = server.listen.rsplit(':').next().unwrap();
    insta::assert_snapshot!(world.steady(&text.replace(port, "[port]")));
}

#[test]
fn after_the_server_was_killed_the_store_is_opened_directly() {
    let world = World::made();
    let Some(server) = Server::start(&world) else {
        return;
    };
    world.json(&server.args(&["invite", "create"]));
    drop(server);
    assert!(
        world.data().join("admin.sock").exists(),
        "killed without a chance to tidy up"
    );

    let listed = world.json(&["invite", "list"]);

    assert_eq!(listed["invites"].as_array().unwrap().len(), 2);
}

/// Waits until a line of `lines` holds `wanted`.
fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, wanted: &str) {
    let found = lines.map(Result::unwrap).any(|line| line.contains(wanted));
    assert!(found, "the program ended before it said `{wanted}`");
}

#[test]
fn rotating_keys_disconnects_nobody_and_revoking_a_device_ends_its_session() {
    let world = World::made();
    let Some((client, server)) = program("commucat").zip(Server::start(&world)) else {
        return;
    };
    let made = world.json(&server.args(&["invite", "create"]));
    let commucat = |args: &[&str]| {
        let mut command = Command::new(&client);
        command
            .current_dir(world.path())
            .env_clear()
            .stdin(Stdio::null());
        command
            .args(["--profile", "alice", "--insecure"])
            .args(args);
        command
    };
    let joined = commucat(&["join", made["link"].as_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        joined.status.success(),
        "{}",
        String::from_utf8_lossy(&joined.stderr)
    );
    let mut listening = commucat(&["listen", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(listening.stdout.take().unwrap()).lines();
    wait_for(&mut events, "online");

    world.json(&server.args(&["rotate-keys"]));
    let devices = world.json(&server.args(&["device", "list"]));
    let device = devices["devices"][0]["device"].as_str().unwrap();
    world.json(&server.args(&["device", "revoke", device, "--yes"]));

    // Had the rotation ended the session, it would say so before.
    let event = events
        .map(Result::unwrap)
        .find(|line| line.contains("\"connection\"") && !line.contains("caught up"));
    assert!(
        event
            .as_ref()
            .is_some_and(|event| event.contains("revoked")),
        "{event:?}"
    );
    listening.wait().unwrap();
    assert_eq!(
        world.json(&server.args(&["device", "list"]))["devices"],
        serde_json::json!([])
    );
}

#[test]
fn a_rotation_through_the_server_is_recorded_before_it_is_answered() {
    let world = World::made();
    let text = "[ledger]\nsink = \"file\"\n";
    std::fs::write(world.path().join("commucat.toml"), text).unwrap();
    let Some(server) = Server::start(&world) else {
        return;
    };

    let rotated = world.json(&server.args(&["rotate-keys"]));

    let ledger = std::fs::read_to_string(world.data().join("ledger.jsonl")).unwrap();
    let wanted = format!(
        r#""kind":"server_keys_changed","serial":{}"#,
        rotated["serial"]
    );
    assert_eq!(ledger.matches(&wanted).count(), 1, "{ledger}");
}
