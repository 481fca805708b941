//! Many messages, with each server killed in the middle of them.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::{Client, Event, Events, Tick};
use tokio::time::{Instant, timeout_at};

use crate::people::{BOB, People, STEP_WAIT, told};
use crate::screen::Screen;
use crate::server::{Server, Servers};

/// Messages that are sent.
pub(crate) const MESSAGES: usize = 200;
/// Servers that are killed.
pub(crate) const KILLS: usize = 2;
/// Written while both servers run.
const WRITTEN_BEFORE: usize = 120;
/// Bob's server is killed as soon as his phone has shown this many.
const SHOWN_BEFORE: usize = 60;
/// Written before Alice's server dies: the last of them while Bob's is dead.
const WRITTEN_BETWEEN: usize = 160;
/// Alice's server is killed as soon as Bob's phone has shown this many.
const SHOWN_BETWEEN: usize = 130;
/// What is sent after them, so that a device knows when it has seen all that came before.
const END: &str = "That was the whole shopping list, thank you";

/// What became of the messages.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Acknowledged by the server.
    pub(crate) sent: usize,
    /// Shown on both devices of Bob.
    pub(crate) shown: usize,
    /// Shown again.
    pub(crate) twice: usize,
    /// Whether each device showed them in the order in which they were written.
    pub(crate) is_in_order: bool,
}

/// The text of a message.
pub(crate) fn text(number: usize) -> String {
    format!("Shopping list, line {}: apples and pears", number + 1)
}

fn number_of(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("Shopping list, line ")?;
    let number: usize = rest.split_once(':')?.0.parse().ok()?;
    number.checked_sub(1)
}

/// Sends the messages, kills the servers among them, starts them again, and counts.
pub(crate) async fn run(
    screen: &Screen,
    servers: &mut Servers,
    people: &People,
) -> Result<Outcome> {
    let mut seen = [people.phone.subscribe(), people.laptop.subscribe()];
    let mut trigger = people.phone.subscribe();
    let (written, killed) = tokio::join!(write(&people.alice, 0..WRITTEN_BEFORE), async {
        shown(&mut trigger, SHOWN_BEFORE).await?;
        kill(&mut servers.bob).await
    });
    written?;
    let pid = killed?;
    screen.say(&format!(
        "`kill -9 {pid}`: Bob's server, as soon as his phone had shown {SHOWN_BEFORE}. No goodbye, no clean-up."
    ));
    write(&people.alice, WRITTEN_BEFORE..WRITTEN_BETWEEN).await?;
    people.alice.quiet(STEP_WAIT).await.map_err(told)?;
    screen.say(&format!(
        "Alice wrote {} more while it was dead; they wait on her server, on its disk.",
        WRITTEN_BETWEEN - WRITTEN_BEFORE
    ));
    servers.bob.start().await?;
    shown(&mut trigger, SHOWN_BETWEEN - SHOWN_BEFORE).await?;
    let pid = kill(&mut servers.alice).await?;
    screen.say(&format!(
        "Bob's server started again; `kill -9 {pid}`: Alice's server, as soon as his phone had shown {SHOWN_BETWEEN}."
    ));
    write(&people.alice, WRITTEN_BETWEEN..MESSAGES).await?;
    screen.say(&format!(
        "Alice wrote {} more while it was dead; they wait in her outbox, on her disk.",
        MESSAGES - WRITTEN_BETWEEN
    ));
    servers.alice.start().await?;
    people.alice.send(BOB, END).await.map_err(told)?;
    let mut by_device = Vec::new();
    for (events, client) in seen.iter_mut().zip([&people.phone, &people.laptop]) {
        by_device.push(until_end(events).await?);
        client.quiet(STEP_WAIT).await.map_err(told)?;
    }
    people.alice.quiet(STEP_WAIT).await.map_err(told)?;
    screen.say("The same servers on the same data; everybody reconnected by themselves.");
    for (client, shown) in [&people.phone, &people.laptop].into_iter().zip(&by_device) {
        ensure!(
            kept(people, client).await? == *shown,
            "the history of a device is not what it has shown"
        );
    }
    Ok(tally(acknowledged(people).await?, &by_device))
}

/// Kills a server; returns the process that it was.
async fn kill(server: &mut Server) -> Result<u32> {
    let pid = server.pid().context("the server does not run")?;
    server.kill().await?;
    Ok(pid)
}

async fn write(alice: &Client, numbers: Range<usize>) -> Result<()> {
    for number in numbers {
        alice.send(BOB, &text(number)).await.map_err(told)?;
    }
    Ok(())
}

/// Returns when a device has shown so many more of the messages.
async fn shown(events: &mut Events, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + STEP_WAIT;
    let mut found = 0;
    while found < wanted {
        if let Event::Message(message) = next(events, deadline).await?
            && number_of(&message.text).is_some()
        {
            found += 1;
        }
    }
    Ok(())
}

/// The messages that a device showed, in its order, repeats included.
async fn until_end(events: &mut Events) -> Result<Vec<usize>> {
    let deadline = Instant::now() + STEP_WAIT;
    let mut found = Vec::new();
    loop {
        if let Event::Message(message) = next(events, deadline).await? {
            if message.text == END {
                return Ok(found);
            }
            found.extend(number_of(&message.text));
        }
    }
}

async fn next(events: &mut Events, deadline: Instant) -> Result<Event> {
    match timeout_at(deadline, events.next()).await {
        Ok(Some(Event::Behind { .. })) => bail!("this program was too slow to count"),
        Ok(Some(event)) => Ok(event),
        Ok(None) => bail!("a client has stopped"),
        Err(_) => bail!("messages do not arrive in time"),
    }
}

/// The messages that a device keeps.
async fn kept(people: &People, client: &Client) -> Result<Vec<usize>> {
    let history = people.history(client).await?;
    let numbers = history.iter().filter_map(|one| number_of(&one.text));
    Ok(numbers.collect())
}

/// How many messages the server has acknowledged to Alice.
async fn acknowledged(people: &People) -> Result<usize> {
    let history = people.history(&people.alice).await?;
    let acknowledged = history
        .iter()
        .filter(|one| number_of(&one.text).is_some() && one.tick >= Tick::Stored);
    Ok(acknowledged.count())
}

fn tally(sent: usize, by_device: &[Vec<usize>]) -> Outcome {
    let mut shown = BTreeMap::<usize, usize>::new();
    let mut twice = 0;
    for device in by_device {
        let mut times = BTreeMap::<usize, usize>::new();
        for number in device {
            *times.entry(*number).or_default() += 1;
        }
        for (number, times) in times {
            twice += times - 1;
            *shown.entry(number).or_default() += 1;
        }
    }
    Outcome {
        sent,
        shown: shown
            .values()
            .filter(|devices| **devices == by_device.len())
            .count(),
        twice,
        is_in_order: by_device.iter().all(|device| device.is_sorted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_one_device_lacks_is_not_shown() {
        let outcome = tally(3, &[vec![0, 1, 2], vec![0, 2]]);

        assert_eq!((outcome.shown, outcome.twice), (2, 0));
        assert!(outcome.is_in_order);
    }

    #[test]
    fn repeats_and_disorder_are_counted() {
        let outcome = tally(2, &[vec![0, 1, 1], vec![1, 0]]);

        assert_eq!((outcome.shown, outcome.twice), (2, 1));
        assert!(!outcome.is_in_order);
    }

    #[test]
    fn a_text_leads_back_to_its_number() {
        assert_eq!(number_of(&text(0)), Some(0));
        assert_eq!(number_of(&text(199)), Some(199));
        assert_eq!(number_of(END), None);
    }
}
