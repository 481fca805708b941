//! What happens to the domains: they die, stand still, are cut off from each other, and their
//! connections lose answers and overtake each other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use commucat_testkit::cable::Weather;
use commucat_testkit::random::Random;
use commucat_testkit::server::START_WAIT;
use tokio::time::{sleep, timeout};

use crate::homes::Homes;

/// Longest that a connection is late.
const LATE_MS: u64 = 400;

/// One kind of fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// `kill -9` of a server, which stays away.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Two domains do not reach each other, and nobody tells them.
    Cut,
    /// Two domains do not reach each other, and are told at once.
    Refuse,
    /// One direction only is cut.
    CutOneWay,
    /// Answers are lost, so that requests come twice.
    LoseAnswers,
    /// Connections are late, each by a time of its own.
    Delay,
}

/// In turn, so that a short run has all of them.
const ALL: [Fault; 7] = [
    Fault::LoseAnswers,
    Fault::Kill,
    Fault::Cut,
    Fault::Delay,
    Fault::Pause,
    Fault::Refuse,
    Fault::CutOneWay,
];

/// How often each fault happened.
pub(crate) type Count = BTreeMap<Fault, u32>;

/// How long a fault lasts at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Two domains do not reach each other.
    pub(crate) cut: Duration,
    /// Anything else.
    pub(crate) other: Duration,
}

/// Lets one fault happen, and everything be well again.
pub(crate) async fn happen(
    homes: &mut Homes,
    random: &mut Random,
    (turn, most): (usize, Most),
) -> Result<Fault> {
    let fault = *ALL.get(turn % ALL.len()).context("no fault")?;
    let count = u64::try_from(homes.all.len())?;
    let one = usize::try_from(random.below(count))?;
    let step = 1 + usize::try_from(random.below(count - 1))?;
    let other = (one + step) % homes.all.len();
    let most = match fault {
        Fault::Cut | Fault::Refuse | Fault::CutOneWay => most.cut,
        Fault::Kill | Fault::Pause | Fault::LoseAnswers | Fault::Delay => most.other,
    };
    let lasts = random.wait(u64::try_from(most.as_millis())?);
    match fault {
        Fault::Kill => {
            let server = homes.one_of(one, random)?;
            server.kill().await?;
            sleep(lasts).await;
            timeout(START_WAIT, server.restart()).await??;
        }
        Fault::Pause => {
            let server = homes.one_of(one, random)?;
            server.signal("STOP").await?;
            sleep(lasts).await;
            server.signal("CONT").await?;
        }
        Fault::Cut => weather(homes, (one, other), Weather::Silent, lasts).await,
        Fault::Refuse => weather(homes, (one, other), Weather::Broken, lasts).await,
        Fault::LoseAnswers => weather(homes, (one, other), Weather::Deaf, lasts).await,
        Fault::Delay => weather(homes, (one, other), Weather::Late(LATE_MS), lasts).await,
        Fault::CutOneWay => {
            let cable = homes.cable(one, other)?;
            cable.set(Weather::Silent);
            sleep(lasts).await;
            cable.set(Weather::Clear);
        }
    }
    Ok(fault)
}

async fn weather(homes: &Homes, (one, other): (usize, usize), like: Weather, lasts: Duration) {
    for cable in homes.between(one, other) {
        cable.set(like);
    }
    sleep(lasts).await;
    for cable in homes.between(one, other) {
        cable.set(Weather::Clear);
    }
}
