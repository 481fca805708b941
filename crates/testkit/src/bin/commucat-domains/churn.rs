//! Changes of the group from all domains at once: each one's person brings a guest, and the group's
//! owner sees them out again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use commucat_client::{Client, ClientError};
use commucat_testkit::people::{Circle, Room, STEP_WAIT, invite, settings, told};
use tokio::time::{Instant, sleep};

use crate::homes::Homes;

/// How often it is looked whether all agree.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Guests, one of each domain, who are in the group now and then.
pub(crate) struct Guests {
    names: Vec<String>,
    _clients: Vec<Client>,
}

impl Guests {
    /// Lets a guest join each domain, and everybody know them.
    pub(crate) async fn arrive(homes: &Homes, circle: &Circle, directory: &Path) -> Result<Self> {
        let (mut names, mut clients) = (Vec::new(), Vec::new());
        for (number, home) in homes.all.iter().enumerate() {
            let name = format!("guest{number}");
            let link = invite(home.server()?, 1).await?;
            let joined = Client::join(settings(directory, &name), &link).await;
            let guest = joined.map_err(told)?;
            guest.connected(STEP_WAIT).await.map_err(told)?;
            let own = guest.me().await.map_err(told)?.contact_link;
            for account in 0..circle.names.len() {
                let person = circle.first(account)?;
                person.add_contact(&own, &name).await.map_err(told)?;
                let theirs = person.me().await.map_err(told)?.contact_link;
                let known = circle.names.get(account).context("no name")?;
                guest.add_contact(&theirs, known).await.map_err(told)?;
            }
            names.push(name);
            clients.push(guest);
        }
        Ok(Self {
            names,
            _clients: clients,
        })
    }

    /// Everybody brings the guest of the own domain, at once.
    pub(crate) async fn come(&self, circle: &Circle, group: &Room) -> Result<()> {
        let bring = async |account: usize| {
            let guest = self.names.get(account).context("no guest")?;
            let person = circle.first(account)?;
            unless_too_late(person.invite(&group.name, guest).await)
        };
        tokio::try_join!(bring(0), bring(1), bring(2))?;
        Ok(())
    }

    /// The owner sees all guests out.
    pub(crate) async fn go(&self, circle: &Circle, group: &Room) -> Result<()> {
        let owner = circle.first(0)?;
        for guest in &self.names {
            unless_too_late(owner.remove(&group.name, guest).await)?;
        }
        Ok(())
    }

    /// Sees the guests out until every device is at the same position with the same members and
    /// nobody else; the position.
    pub(crate) async fn settle(
        &self,
        (circle, clients): (&Circle, &[Client]),
        group: &Room,
    ) -> Result<u64> {
        let deadline = Instant::now() + STEP_WAIT;
        let mut last = None;
        loop {
            let mut seen = Vec::new();
            for client in clients {
                let all = client.conversations().await.map_err(told)?;
                let name = |one: &commucat_client::Conversation| {
                    data_encoding::HEXLOWER.encode(one.id.as_bytes()) == group.name
                };
                let one = all.into_iter().find(name).context("the group is gone")?;
                let members: Vec<_> = one.members.into_iter().map(|(id, _)| id).collect();
                seen.push((one.position, one.devices, members, one.unsent));
            }
            let first = seen.first().context("no device")?;
            let is_whole = first.1 == group.seats.len() && seen.iter().all(|one| one == first);
            // Twice the same: nobody has a change left that is under way.
            if is_whole && last.as_ref() == Some(first) {
                return Ok(first.0);
            }
            if Instant::now() > deadline {
                let seen: Vec<_> = seen.iter().map(|one| (one.0, one.1, one.3)).collect();
                bail!("the devices do not agree (position, devices, unsent): {seen:?}");
            }
            last = is_whole.then(|| first.clone());
            if seen.iter().any(|one| one.1 != group.seats.len()) {
                self.go(circle, group).await?;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// A guest may be there already, or not yet.
fn unless_too_late(done: Result<(), ClientError>) -> Result<()> {
    match done {
        Ok(()) | Err(ClientError::Unknown { .. } | ClientError::NotNow(_)) => Ok(()),
        Err(error) => Err(told(error)),
    }
}
