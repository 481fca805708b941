//! Groups, queues and accounts of others.

mod admins;
mod members;
mod strangers;

use anyhow::Result;
use commucat_crypto::secret::random_bytes;
use commucat_proto::error::Title;
use commucat_proto::id::{Domain, GroupId};

use crate::client::{Got, Keys};
use crate::suite::Suite;
use crate::world::{Place, Rogue, create, place_of};

const NOT_FOUND: [Got; 1] = [Got::Refused(Title::NotFound)];
const FORBIDDEN: [Got; 1] = [Got::Refused(Title::Forbidden)];
const INVALID: [Got; 1] = [Got::Refused(Title::InvalidControlPayload)];
const CONFLICT: [Got; 1] = [Got::Refused(Title::Conflict)];

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let pair = suite.world.pair;
    let own = place_of(&mut suite.world.stranger, pair).await?;
    strangers::strangers(suite, &own).await?;
    strangers::strangers_commits(suite, &own).await?;
    strangers::links(suite).await?;
    strangers::creations(suite, &own).await?;
    strangers::accounts(suite).await?;
    members::removed(suite).await?;
    members::plain_members(suite).await?;
    admins::impossible(suite).await?;
    admins::weak_handles(suite).await?;
    admins::positions(suite).await?;
    admins::bindings(suite).await?;
    members::blocks(suite).await
}

fn elsewhere() -> Result<Domain> {
    Ok(Domain::parse("elsewhere.example")?)
}

/// An own group, to break rules in.
async fn own_group(rogue: &mut Rogue) -> Result<(GroupId, Place)> {
    let group = GroupId::new(random_bytes());
    let place = place_of(rogue, group).await?;
    let keys = Keys {
        account: commucat_crypto::certificate::AccountSecret::from_seed(&rogue.keys.account.seed()),
        noise: rogue.keys.noise.clone(),
        device: rogue.keys.device.clone(),
        target: rogue.keys.target.clone(),
    };
    create(rogue.live().await?, &keys, group, &place).await?;
    Ok((group, place))
}
