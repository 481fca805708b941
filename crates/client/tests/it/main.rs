//! The command as scripts see it: exit codes, JSON, hints. No server is needed for these.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn commucat(profile: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_commucat"))
        .env("COMMUCAT_PROFILE", profile)
        .env_remove("COMMUCAT_PASSPHRASE_FILE")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_error_names_the_thing_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();

    let output = commucat(&dir.path().join("none"), &["contacts", "--json"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(
        json(&output)["error"]
            .as_str()
            .unwrap()
            .contains("no profile in")
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("Error: no profile in") && told.contains("Hint: `commucat join"));
}

#[test]
fn nothing_listening_is_called_tcp_connect_failed() {
    let dir = tempfile::tempdir().unwrap();
    let key = "a".repeat(52);
    let invite = format!(
        "commucat://127.0.0.1:1/#i={},d=localhost,k={key}",
        "a".repeat(26)
    );

    let output = commucat(&dir.path().join("profile"), &["join", &invite, "--json"]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["error"], "tcp connect failed");
    assert!(!json(&output)["causes"].as_array().unwrap().is_empty());
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();

    let output = commucat(dir.path(), &["send", "bob"]);

    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_new_device_shows_the_same_code_until_it_is_linked() {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("laptop");

    let first = commucat(&profile, &["link", "--json"]);
    let second = commucat(&profile, &["link", "--json"]);
    let early = commucat(&profile, &["me"]);

    let code = json(&first)["code"].as_str().unwrap().to_owned();
    assert!(code.starts_with("commucat:link/"));
    assert_eq!(json(&second)["code"], code.as_str());
    assert!(
        String::from_utf8(early.stderr)
            .unwrap()
            .contains("not linked yet")
    );
}

#[test]
fn a_phrase_that_is_none_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("found");
    let invite = format!(
        "commucat://127.0.0.1:1/#i={},d=localhost,k={}",
        "a".repeat(26),
        "a".repeat(52)
    );

    let mut child = Command::new(env!("CARGO_BIN_EXE_commucat"))
        .args([
            "--profile",
            profile.to_str().unwrap(),
            "recover",
            &invite,
            "--json",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"twenty four words they are not")
        .unwrap();
    let output = child.wait_with_output().unwrap();

    assert_eq!(
        json(&output)["error"],
        "this is not a valid recovery phrase"
    );
    assert!(!profile.exists());
}
