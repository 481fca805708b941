//! The configuration as an operator meets it.

#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use commucat_config::{
    Config, LedgerSink, Registration, Sources, environment_sample, example, page, settings,
};

fn file(text: &str) -> Sources {
    Sources::default().with_text(Path::new("commucat.toml"), text)
}

fn message(sources: &Sources) -> String {
    Config::load(sources).unwrap_err().to_string()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn without_any_source_the_defaults_hold() {
    let config = Config::load(&Sources::default()).unwrap();

    assert_eq!(config.server.domain.as_str(), "localhost");
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["127.0.0.1:8443", "[::1]:8443"]);
    assert_eq!(config.server.data, Path::new("./commucat-data"));
    assert_eq!(config.server.registration, Registration::Invite);
    assert_eq!(config.ledger.sink, LedgerSink::Null);
    assert_eq!(config.limits.ack_wait, Duration::from_millis(250));
    assert_eq!(config.limits.max_payload.bytes(), 262_144);
    assert_eq!(config.limits.queue_bytes.bytes(), 67_108_864);
    assert_eq!(config.limits.mailbox_memory, None);
    assert_eq!(config.endpoint().as_str(), "localhost:8443");
}

#[test]
fn a_later_source_goes_over_an_earlier_one() {
    let sources = file("[limits]\nunacked = 100\nqueue_entries = 200\nstreams = 300\n")
        .with_variables(variables(&[
            ("COMMUCAT_LIMITS_QUEUE_ENTRIES", "201"),
            ("COMMUCAT_LIMITS_STREAMS", "301"),
            ("COMMUCAT_HOME", "of another program"),
        ]))
        .with_flag("limits.streams", "302");

    let limits = Config::load(&sources).unwrap().limits;

    assert_eq!(
        (limits.unacked, limits.queue_entries, limits.streams),
        (100, 201, 302)
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let sources = file("[server]\ndomain = \"a.example\"\n\n# a comment\nlissten = []\n");

    assert_eq!(
        message(&sources),
        "commucat.toml:5: unknown key `server.lissten`; did you mean `server.listen`?"
    );
}

#[test]
fn a_key_outside_of_its_block_is_named_with_the_block() {
    assert_eq!(
        message(&file("domain = \"a.example\"\n")),
        "commucat.toml:1: unknown key `domain`; did you mean `server.domain`?"
    );
    assert_eq!(
        message(&file("[servers]\n")),
        "commucat.toml:1: unknown key `servers`; did you mean `server`?"
    );
}

#[test]
fn an_unknown_variable_of_a_block_is_an_error() {
    let sources = Sources::default().with_variables(variables(&[("COMMUCAT_SERVER_DOMIAN", "x")]));

    assert_eq!(
        message(&sources),
        "environment variable COMMUCAT_SERVER_DOMIAN: unknown key `COMMUCAT_SERVER_DOMIAN`; \
         did you mean `COMMUCAT_SERVER_DOMAIN`?"
    );
}

#[test]
fn a_wrong_value_is_answered_with_a_good_one_and_never_repeated() {
    for (text, expected) in [
        (
            "[limits]\nkeepalive = 30\n",
            "commucat.toml:2: `limits.keepalive` needs a whole number with a unit (ms, s, m, h, d), \
             such as \"250ms\"",
        ),
        (
            "[limits]\nqueue_bytes = \"hunter2\"\n",
            "commucat.toml:2: `limits.queue_bytes` needs a whole number with a unit (B, KiB, MiB, \
             GiB), such as \"64MiB\"",
        ),
        (
            "[server]\ndomain = \"Chat.Example\"\n",
            "commucat.toml:2: `server.domain` needs a lower-case DNS name or IP address, optionally \
             with :port",
        ),
        (
            "[server]\nlisten = [\"8443\"]\n",
            "commucat.toml:2: `server.listen` needs an address and port such as \"127.0.0.1:8443\" \
             or \"[::1]:8443\"",
        ),
        (
            "[ledger]\nsink = \"tape\"\n",
            "commucat.toml:2: `ledger.sink` needs one of: null, debug, file",
        ),
        (
            "[limits]\nunacked = 1.5\n",
            "commucat.toml:2: `limits.unacked` needs a text, a whole number, true or false, or a \
             list",
        ),
    ] {
        assert_eq!(message(&file(text)), expected);
    }
}

#[test]
fn a_value_outside_of_its_range_is_refused() {
    assert_eq!(
        message(&file("[limits]\nack_wait = \"1ms\"\n")),
        "commucat.toml:2: `limits.ack_wait` needs a value from 10ms to 10s"
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    assert!(message(&file("[server]\n\ndomain = \n")).starts_with("commucat.toml:3: "));
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    assert_eq!(
        message(&file("[server]\ntls_certificate = \"chain.pem\"\n")),
        "`server.tls_certificate` and `server.tls_key` go together"
    );
    assert_eq!(
        message(&file("[server]\nlisten = []\n")),
        "`server.listen` is empty"
    );
}

#[test]
fn every_default_lies_in_its_range_and_reads_back_from_the_example() {
    let uncommented: String = example()
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .fold(String::new(), |text, line| text + line + "\n");

    let config = Config::load(&file(&uncommented)).unwrap();

    assert_eq!(config, Config::load(&Sources::default()).unwrap());
    assert_eq!(config, Config::load(&file(&example())).unwrap());
}

#[test]
fn the_example_files_of_the_repository_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();

    // `cargo run -p commucat-config --example reference -- write` makes them anew.
    assert_eq!(read("commucat.toml"), example());
    assert_eq!(read(".env.sample"), environment_sample());
    assert_eq!(read("docs/CONFIGURATION.md"), page());
}

#[test]
fn every_setting_has_a_name_of_its_own_and_a_meaning() {
    let mut names: Vec<String> = settings().map(|setting| setting.variable()).collect();
    let count = names.len();
    names.sort();
    names.dedup();

    assert_eq!(names.len(), count);
    for setting in settings() {
        assert!(setting.sentence().ends_with('.'), "{}", setting.key());
    }
}

#[test]
fn the_metrics_token_is_not_shown_by_debug() {
    let sources = file("[admin]\nmetrics_token = \"0123456789abcdef-secret\"\n");

    let shown = format!("{:?}", Config::load(&sources).unwrap().admin);

    assert!(!shown.contains("secret\""), "{shown}");
    assert!(!shown.contains("0123456789"), "{shown}");
}

#[test]
fn the_store_goes_by_its_older_names_too() {
    let url = |sources: Sources| {
        let config = Config::load(&sources).unwrap();
        config.store_url().expose().to_owned()
    };
    let database = "postgres://user:canary@localhost/db";
    let file = |text: &str| Sources::default().with_text(Path::new("commucat.toml"), text);
    let variable =
        |name: &str| Sources::default().with_variables([(name.to_owned(), database.to_owned())]);

    let text = format!("[storage]\npostgres_dsn = \"{database}\"\n");
    assert_eq!(url(file(&text)), database);
    assert_eq!(url(variable("COMMUCAT_PG_DSN")), database);
    assert_eq!(url(variable("COMMUCAT_STORAGE_URL")), database);
    assert_eq!(url(file("[storage]\npath = \"/var/x\"\n")), "sqlite:/var/x");
    assert_eq!(
        url(Sources::default().with_flag("server.data", "/d")),
        "sqlite:/d"
    );
    let shown = Config::effective(&variable("COMMUCAT_PG_DSN")).unwrap();
    assert!(!format!("{shown:?}").contains("canary"));
}

#[test]
fn a_store_of_another_kind_is_refused_without_its_address() {
    let sources = Sources::default().with_flag("storage.url", "mysql://user:canary@localhost/db");

    let refused = Config::load(&sources).unwrap_err().to_string();

    assert!(refused.contains("sqlite:DIRECTORY"), "{refused}");
    assert!(!refused.contains("canary"), "{refused}");
}
