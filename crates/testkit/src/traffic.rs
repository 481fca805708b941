//! Devices that talk in their rooms, some of them coming and going, and note what they see.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use commucat_client::{Client, Event, Events, Settings, Tick};
use commucat_proto::id::GroupId;
use data_encoding::HEXLOWER;
use tokio::sync::{Barrier, watch};
use tokio::time::sleep;

use crate::history::Key;
use crate::people::{Circle, Room, told, until};
use crate::random::Random;
use crate::recorder::Recorder;

/// Messages that a device has in its outbox before it waits for the server.
const OUTBOX_MAX: usize = 24;
/// How often it looks.
const LOOK_EVERY: u32 = 8;
/// Longest that a device which comes and goes stays, and is away.
const STAYS_MS: u64 = 2_500;
const AWAY_MS: u64 = 700;
/// Messages in a page of a history.
const PAGE: u32 = 500;

/// What the devices are to do.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Talk.
    #[default]
    Talk,
    /// Be there and listen.
    Listen,
    /// Say one last thing in every room, then listen.
    Last,
    /// End.
    End,
}

/// How a device behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// It is always there.
    Stays,
    /// It is killed and opened again, over and over.
    ComesAndGoes,
}

/// How a device lives.
#[derive(Clone, Debug)]
pub struct Way {
    /// How it behaves.
    pub manner: Manner,
    /// Longest that it rests after a message.
    pub rests_ms: u64,
    /// What to do.
    pub phase: watch::Receiver<Phase>,
    /// Where devices meet that have nothing in their outboxes any more, after [`Phase::Talk`] and
    /// again after [`Phase::Last`].
    pub drained: Arc<Barrier>,
}

/// One device.
#[derive(Debug)]
pub struct Player {
    eyes: Eyes,
    hands: Hands,
    settings: Settings,
    manner: Manner,
    random: Random,
    phase: watch::Receiver<Phase>,
}

/// Sees what the device shows.
#[derive(Debug)]
struct Eyes {
    device: usize,
    recorder: Recorder,
    /// Rooms by group, with the number of the last message seen.
    rooms: HashMap<GroupId, (usize, u64)>,
}

/// Writes.
#[derive(Debug)]
struct Hands {
    device: usize,
    recorder: Recorder,
    rooms: Vec<Place>,
    random: Random,
    rests_ms: u64,
    phase: watch::Receiver<Phase>,
    drained: Arc<Barrier>,
}

/// A room as a writer sees it.
#[derive(Clone, Debug)]
struct Place {
    room: usize,
    name: String,
    /// Messages written.
    written: u64,
}

impl Player {
    /// The device `device` of a circle in those of `rooms` that it is in.
    ///
    /// # Errors
    ///
    /// If there is no such device, or a room's name is no group id.
    pub fn new(
        circle: &Circle,
        device: usize,
        (rooms, recorder): (&[Room], &Recorder),
        way: &Way,
        random: &mut Random,
    ) -> Result<Self> {
        let seat = circle.seats.get(device).context("no such device")?;
        let mut seen = HashMap::new();
        let mut places = Vec::new();
        for (room, one) in rooms.iter().enumerate() {
            if one.seats.contains(&device) {
                let group = HEXLOWER.decode(one.name.as_bytes())?;
                seen.insert(GroupId::parse(&group)?, (room, 0));
                places.push(Place {
                    room,
                    name: one.name.clone(),
                    written: 0,
                });
            }
        }
        Ok(Self {
            eyes: Eyes {
                device,
                recorder: recorder.clone(),
                rooms: seen,
            },
            hands: Hands {
                device,
                recorder: recorder.clone(),
                rooms: places,
                random: random.fork(),
                rests_ms: way.rests_ms,
                phase: way.phase.clone(),
                drained: Arc::clone(&way.drained),
            },
            settings: seat.settings.clone(),
            manner: way.manner,
            random: random.fork(),
            phase: way.phase.clone(),
        })
    }

    /// Lives until the phase is [`Phase::End`]; returns the client as it is then.
    ///
    /// # Errors
    ///
    /// What the client says: none is expected, whatever happens to the server.
    pub async fn live(mut self, mut client: Client) -> Result<Client> {
        let device = self.eyes.device;
        loop {
            let mut phase = self.phase.clone();
            let stays = self.random.wait(STAYS_MS);
            let leaves = async {
                sleep(stays).await;
                if self.manner == Manner::Stays || *phase.borrow() != Phase::Talk {
                    phase.wait_for(|phase| *phase == Phase::End).await.ok();
                    // The session sees it too, and ends in order.
                    std::future::pending::<()>().await;
                }
            };
            let events = client.subscribe();
            let session = async {
                self.eyes.catch_up(&client).await?;
                let watches = self.eyes.watch(events, self.phase.clone());
                tokio::try_join!(watches, self.hands.write(&client))?;
                anyhow::Ok(())
            };
            tokio::select! {
                ended = session => {
                    ended.with_context(|| format!("device {device}"))?;
                    return Ok(client);
                }
                () = leaves => {}
            }
            if self.random.below(4) == 0 {
                client.shutdown().await;
            } else {
                client.abort().await;
            }
            sleep(self.random.wait(AWAY_MS)).await;
            let opened = Client::open(self.settings.clone()).await.map_err(told);
            client = opened.with_context(|| format!("device {device} does not open"))?;
        }
    }
}

impl Eyes {
    /// Reads what came while nobody looked.
    async fn catch_up(&mut self, client: &Client) -> Result<()> {
        for (group, (room, seen)) in &mut self.rooms {
            let name = HEXLOWER.encode(group.as_bytes());
            loop {
                let page = client.history(&name, *seen, PAGE).await.map_err(told)?;
                for message in &page {
                    self.recorder.shows(self.device, *room, &message.text);
                    *seen = message.number;
                }
                if page.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn watch(&mut self, mut events: Events, mut phase: watch::Receiver<Phase>) -> Result<()> {
        // What the catching up has read is told again by events that were under way.
        let caught: HashMap<_, _> = self.rooms.clone();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ended = phase.wait_for(|phase| *phase == Phase::End) => return Ok(()),
            };
            match event {
                None => bail!("the client has stopped"),
                Some(Event::Message(message)) => {
                    let (device, text) = (self.device, &message.text);
                    let Some((room, seen)) = self.rooms.get_mut(&message.conversation) else {
                        self.recorder.shows(device, usize::MAX, text);
                        continue;
                    };
                    let caught = caught.get(&message.conversation);
                    if caught.is_none_or(|(_, caught)| message.number > *caught) {
                        self.recorder.shows(device, *room, text);
                        *seen = message.number.max(*seen);
                    }
                }
                Some(Event::Tick { message, tick, .. }) if tick >= Tick::Stored => {
                    self.recorder.acknowledged_id(message);
                }
                Some(Event::Behind { .. }) => bail!("the listener is behind"),
                Some(Event::Gap { .. }) => bail!("the client misses messages"),
                Some(Event::Fork { .. }) => bail!("the client sees a fork"),
                Some(_) => {}
            }
        }
    }
}

impl Hands {
    async fn write(&mut self, client: &Client) -> Result<()> {
        let mut events = client.subscribe();
        let mut written = 0_u32;
        loop {
            let phase = *self.phase.borrow_and_update();
            match phase {
                Phase::Talk => {
                    if written.is_multiple_of(LOOK_EVERY) {
                        self.wait_for_room(client, &mut events).await?;
                    }
                    let count = u64::try_from(self.rooms.len())?;
                    let place = usize::try_from(self.random.below(count))?;
                    self.say(client, place).await?;
                    written += 1;
                    if self.rests_ms > 0 {
                        self.rest().await;
                    }
                    continue;
                }
                Phase::Listen => {}
                Phase::Last => {
                    for place in 0..self.rooms.len() {
                        self.say(client, place).await?;
                    }
                }
                Phase::End => return Ok(()),
            }
            self.drain(client).await?;
            self.drained.wait().await;
            self.phase.changed().await?;
        }
    }

    /// Waits until the server has custody of everything, and notes that it has.
    async fn drain(&self, client: &Client) -> Result<()> {
        until(client, "an empty outbox", async |client| {
            Ok((client.status().await?.outbox == 0).then_some(()))
        })
        .await?;
        for place in &self.rooms {
            for (text, tick) in read_all(client, &place.name).await? {
                if tick.is_some_and(|tick| tick >= Tick::Stored)
                    && let Some(key) = Key::parse(&text)
                {
                    self.recorder.acknowledged(key);
                }
            }
        }
        Ok(())
    }

    /// Says nothing for a while, unless there is something else to do.
    async fn rest(&mut self) {
        let (rest, mut phase) = (self.random.wait(self.rests_ms), self.phase.clone());
        tokio::select! {
            () = sleep(rest) => {}
            _over = phase.wait_for(|phase| *phase != Phase::Talk) => {}
        }
    }

    /// Waits while the outbox is full.
    async fn wait_for_room(&mut self, client: &Client, events: &mut Events) -> Result<()> {
        let mut phase = self.phase.clone();
        while client.status().await.map_err(told)?.outbox >= OUTBOX_MAX {
            tokio::select! {
                event = events.next() => drop(event.context("the client has stopped")?),
                _over = phase.wait_for(|phase| *phase != Phase::Talk) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn say(&mut self, client: &Client, place: usize) -> Result<()> {
        let place = self.rooms.get_mut(place).context("no room")?;
        place.written += 1;
        let key = Key {
            room: place.room,
            author: self.device,
            number: place.written,
        };
        self.recorder.sends(key);
        let sent = client.send(&place.name, &key.text()).await.map_err(told)?;
        self.recorder.took(key, sent.message);
        Ok(())
    }
}

/// Everything in a device's history of a room, with the ticks of its own messages.
///
/// # Errors
///
/// What the client says.
pub async fn read_all(client: &Client, room: &str) -> Result<Vec<(String, Option<Tick>)>> {
    let own = client.me().await.map_err(told)?.device;
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = client.history(room, after, PAGE).await.map_err(told)?;
        let Some(last) = page.last() else {
            return Ok(all);
        };
        after = last.number;
        all.extend(page.into_iter().map(|message| {
            let tick = (message.device == own).then_some(message.tick);
            (message.text, tick)
        }));
    }
}

/// Longest time without anything happening before a test gives up.
pub const STILL_WAIT: Duration = Duration::from_secs(60);

/// Waits until every message known as acknowledged is shown everywhere.
///
/// # Errors
///
/// If nothing happens for [`STILL_WAIT`] before that.
pub async fn settle(recorder: &Recorder) -> Result<()> {
    let mut progress = recorder.progress();
    while progress.borrow_and_update().missing > 0 {
        let changed = tokio::time::timeout(STILL_WAIT, progress.changed()).await;
        let missing = progress.borrow().missing;
        changed.with_context(|| format!("{missing} messages do not arrive"))??;
    }
    Ok(())
}
