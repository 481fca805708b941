//! `rotate-keys`: replaces keys of the domain while everybody stays connected.

use commucat_admin::{Answer, KeyKind, Keys, Request};
use commucat_config::Config;

use crate::args;
use crate::door::{Door, other_answer};
use crate::output::{Output, table};
use crate::report::Report;
use crate::time::show;

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    which: &args::RotateKeys,
    output: Output,
) -> Result<(), Report> {
    let kind = match (which.domain_key, which.references) {
        (true, _) => KeyKind::Domain,
        (false, true) => KeyKind::References,
        (false, false) => KeyKind::Noise,
    };
    let mut door = Door::open(config).await?;
    let answer = door.ask(Request::RotateKeys { keys: kind }).await;
    door.close().await;
    let Answer::Keys(keys) = answer? else {
        return Err(other_answer());
    };
    output.show(&keys, |keys| text(keys, kind))
}

fn text(keys: &Keys, kind: KeyKind) -> String {
    let what = match kind {
        KeyKind::Noise => {
            "The server has a new Noise key. The old one is accepted for 30 more days."
        }
        KeyKind::Domain => {
            "The domain has a new key. Clients follow from the old one by a chain that it signed."
        }
        KeyKind::References => "New references are sealed with a new key. Old ones go on working.",
    };
    let row = |key: &commucat_admin::NoiseKey| {
        [
            key.name.clone(),
            show(key.not_before_ms),
            show(key.not_after_ms),
        ]
    };
    let rows: Vec<_> = keys.noise_keys.iter().map(row).collect();
    format!(
        "{what}\n\nDomain key  {}\nStatement   {}\n\n{}\nBack up the directory of the keys.\n",
        keys.domain_key,
        keys.serial,
        table(["NOISE KEY", "FROM", "ACCEPTED UNTIL"], &rows),
    )
}
