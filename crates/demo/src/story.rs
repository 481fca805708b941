//! The story, step by step.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use commucat_client::{Client, Event, Tick};
use tokio::time::{Instant, timeout_at};

use crate::figures::{Figures, SUITE, suite_name};
use crate::people::{ALICE, BOB, People, STEP_WAIT, told};
use crate::screen::Screen;
use crate::server::Servers;
use crate::{audit, burst};

/// Sent while the laptop is off.
pub(crate) const WHILE_OFF: &str = "The cake is in the oven, come at nine";
/// Sent while the laptop is off, and left waiting until the server's files are searched.
pub(crate) const WAITING: &str = "Bring the blue umbrella, it will rain";

/// Plays everything; the servers have ended in order afterwards.
pub(crate) async fn tell(
    screen: &mut Screen,
    servers: &mut Servers,
    home: &Path,
) -> Result<Figures> {
    let mut people = gather(screen, servers, home).await?;
    let suite = safety(screen, &mut people).await?;
    let stored_then_delivered = hello(screen, &people).await?;
    offline(screen, &mut people).await?;
    let outcome = kill(screen, servers, &people).await?;
    let (rows, pii_hits) = inspect(screen, servers, &people).await?;
    Ok(Figures {
        suite: suite_name(suite),
        sent: outcome.sent,
        shown: outcome.shown,
        lost: burst::MESSAGES.saturating_sub(outcome.shown),
        twice: outcome.twice,
        stored_then_delivered,
        kills: burst::KILLS,
        rows,
        pii_hits,
        seconds: 0.0,
    })
}

async fn gather(screen: &mut Screen, servers: &mut Servers, home: &Path) -> Result<People> {
    screen.step("Two servers").await;
    let invites = servers.start().await?;
    for (whose, server) in [("Alice's", &servers.alice), ("Bob's", &servers.bob)] {
        screen.say(&format!(
            "{whose} commucat-server runs as process {} and serves the domain {}.",
            server.pid().unwrap_or_default(),
            server.domain()
        ));
    }
    screen.say("Each made its keys, its certificate and an invite for its first accounts:");
    for invite in &invites {
        screen.detail(invite);
    }
    screen.say("They trust each other's certificates; on the internet those of an authority do.");

    screen.step("Two people, three devices").await;
    let people = People::join(home, servers.certificates(), &invites).await?;
    for (who, client) in [("Alice", &people.alice), ("Bob  ", &people.phone)] {
        let me = client.me().await.map_err(told)?;
        screen.say(&format!(
            "{who} joined with an invite: {}@{}",
            me.account.as_str(),
            me.domain
        ));
    }
    screen.say("Bob's phone signed in his laptop by the code that it showed.");
    screen.say("An account is a key: no name, no mail address, no phone number.");
    people.introduce().await?;
    screen.say(&format!(
        "They exchanged contact links; \"{BOB}\" and \"{ALICE}\" are names on their own devices only."
    ));
    Ok(people)
}

async fn safety(screen: &mut Screen, people: &mut People) -> Result<u16> {
    screen.step("Is it really Bob?").await;
    let suite = people.meet().await?;
    let here = people.alice.safety(BOB).await.map_err(told)?.digits;
    let there = people.phone.safety(ALICE).await.map_err(told)?.digits;
    screen.say("Both look at the safety number, made from both accounts' keys:");
    for (who, digits) in [("Alice", &here), ("Bob  ", &there)] {
        screen.detail(&format!(
            "{who}  {}",
            digits.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }
    let is_same = here == there;
    if is_same {
        people.alice.mark_verified(BOB).await.map_err(told)?;
        people.phone.mark_verified(ALICE).await.map_err(told)?;
    }
    let text = "account ids verified: the same number on both sides, nobody sits between them";
    screen.result(is_same, text);
    ensure!(is_same, "the safety numbers differ");
    let text = format!("MLS suite {}", suite_name(suite));
    screen.result(suite == SUITE, &text);
    Ok(suite)
}

async fn hello(screen: &mut Screen, people: &People) -> Result<bool> {
    screen.step("\"hi\"").await;
    let ticks = ticks_of(&people.alice, "hi").await?;
    let names: Vec<_> = ticks.iter().map(|tick| tick.as_str()).collect();
    let is_right = ticks == [Tick::Stored, Tick::Delivered];
    screen.result(is_right, &format!("Alice's ticks: {}", names.join(" -> ")));
    for (what, client) in [("phone", &people.phone), ("laptop", &people.laptop)] {
        people.shows(client, "hi").await?;
        screen.result(true, &format!("Bob's {what} shows: hi"));
    }
    Ok(is_right)
}

/// Sends a text to Bob; returns its ticks until it is delivered.
async fn ticks_of(alice: &Client, text: &str) -> Result<Vec<Tick>> {
    let mut events = alice.subscribe();
    let sent = alice.send(BOB, text).await.map_err(told)?;
    let deadline = Instant::now() + STEP_WAIT;
    let mut ticks = Vec::new();
    while ticks.last() < Some(&Tick::Delivered) {
        match timeout_at(deadline, events.next()).await {
            Ok(Some(Event::Tick { message, tick, .. })) if message == sent.message => {
                ticks.push(tick);
            }
            Ok(Some(_)) => {}
            Ok(None) => bail!("Alice's client has stopped"),
            Err(_) => bail!("`{text}` is not delivered in time"),
        }
    }
    Ok(ticks)
}

async fn offline(screen: &mut Screen, people: &mut People) -> Result<()> {
    screen.step("A device that is switched off").await;
    people.laptop_off().await?;
    screen.say("Bob's laptop is off.");
    write_and_wait(&people.alice, WHILE_OFF).await?;
    people.shows(&people.phone, WHILE_OFF).await?;
    screen.say(&format!(
        "Alice writes \"{WHILE_OFF}\"; the phone shows it."
    ));
    screen.say("Bob's server keeps one sealed entry for the laptop, on disk.");
    screen.pause().await;
    people.laptop_on().await?;
    people.shows(&people.laptop, WHILE_OFF).await?;
    screen.result(true, "the laptop is on again and shows it, too");
    people.laptop.quiet(STEP_WAIT).await.map_err(told)
}

async fn write_and_wait(alice: &Client, text: &str) -> Result<()> {
    let sent = alice.send(BOB, text).await.map_err(told)?;
    let wait = alice.wait(sent, Tick::Stored, STEP_WAIT).await;
    wait.map(drop).map_err(told)
}

async fn kill(
    screen: &mut Screen,
    servers: &mut Servers,
    people: &People,
) -> Result<burst::Outcome> {
    screen
        .step("200 messages, and first Bob's server dies, then Alice's")
        .await;
    let outcome = burst::run(screen, servers, people).await?;
    let lost = burst::MESSAGES.saturating_sub(outcome.shown);
    let is_good = outcome.sent == burst::MESSAGES && lost == 0 && outcome.twice == 0;
    screen.result(
        is_good,
        &format!(
            "{} sent, {} shown, {lost} lost, {} twice",
            outcome.sent, outcome.shown, outcome.twice
        ),
    );
    ensure!(outcome.is_in_order, "messages are shown out of order");
    screen.detail("on each of Bob's devices, in Alice's order.");
    Ok(outcome)
}

async fn inspect(
    screen: &mut Screen,
    servers: &mut Servers,
    people: &People,
) -> Result<(u64, usize)> {
    screen.step("What do the servers know?").await;
    people.laptop_off().await?;
    write_and_wait(&people.alice, WAITING).await?;
    for client in [&people.alice, &people.phone] {
        client.quiet(STEP_WAIT).await.map_err(told)?;
    }
    servers.alice.stop().await?;
    servers.bob.stop().await?;
    screen.say("The laptop went off again and Alice wrote once more, so that something waits.");
    screen.say("Then the servers were stopped. These are their whole databases.");
    screen.pause().await;
    let mut rows = 0;
    for (whose, server) in [("Alice's", &servers.alice), ("Bob's", &servers.bob)] {
        screen.say(&format!("{whose} server:"));
        rows += audit::show_rows(screen, server)?;
    }
    screen.step("Is anything of it personal?").await;
    let hits = audit::search(screen, servers, people).await?;
    Ok((rows, hits))
}

/// The last words.
pub(crate) fn end(screen: &Screen, figures: &Figures, is_good: bool) {
    let seconds = figures.seconds;
    let text = if is_good {
        format!("everything as promised, in {seconds} seconds")
    } else {
        format!("not everything as promised, in {seconds} seconds")
    };
    screen.say("");
    screen.result(is_good, &text);
    screen.say("");
    screen.say("A server of your own:");
    for command in [
        "cargo build --release",
        "./target/release/commucat-server            # prints an invite",
        "./target/release/commucat join '<invite>'   # in another terminal",
    ] {
        screen.command(command);
    }
    screen.say("README.md goes on from there; docs/SERVER_GUIDE.md serves a real domain.");
}
