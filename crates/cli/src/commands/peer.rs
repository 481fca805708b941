//! `peer`: other domains, named, listed, allowed, blocked, forgotten, pinged.

use commucat_admin::{Answer, Peer, PeerStanding, Request};
use commucat_config::Config;
use serde::Serialize;

use crate::args;
use crate::door::{Door, other_answer};
use crate::output::{Output, table};
use crate::report::Report;
use crate::time::show;

#[derive(Serialize)]
struct Listed {
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Removed {
    removed: Peer,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    command: args::Peer,
    output: Output,
) -> Result<(), Report> {
    let mut door = Door::open(config).await?;
    let done = match command {
        args::Peer::List => list(&mut door, output).await,
        args::Peer::Add {
            domain,
            endpoint,
            key,
        } => {
            let request = Request::AddPeer {
                domain,
                endpoint,
                key,
            };
            one(&mut door, request, output).await
        }
        args::Peer::Show { domain } => one(&mut door, Request::ShowPeer { domain }, output).await,
        args::Peer::Allow { domain } => {
            let standing = PeerStanding::Active;
            one(&mut door, Request::SetPeer { domain, standing }, output).await
        }
        args::Peer::Block { domain } => {
            let standing = PeerStanding::Blocked;
            one(&mut door, Request::SetPeer { domain, standing }, output).await
        }
        args::Peer::Remove { domain, yes: true } => remove(&mut door, domain, output).await,
        args::Peer::Remove { domain, yes: false } => ask_back(&mut door, domain).await,
        args::Peer::Ping { domain } => ping(&mut door, domain, output).await,
    };
    door.close().await;
    done
}

async fn list(door: &mut Door, output: Output) -> Result<(), Report> {
    let mut listed = Listed { peers: Vec::new() };
    loop {
        let after = listed.peers.last().map(|peer| peer.domain.clone());
        let Answer::Peers(page) = door.ask(Request::ListPeers { after }).await? else {
            return Err(other_answer());
        };
        let is_end = !page.more || page.peers.is_empty();
        listed.peers.extend(page.peers);
        if is_end {
            break;
        }
    }
    output.show(&listed, |listed| {
        if listed.peers.is_empty() {
            return "no other domain is known; `commucat-cli peer add DOMAIN` names one\n"
                .to_owned();
        }
        let row = |peer: &Peer| {
            [
                peer.domain.clone(),
                standing(peer.standing).to_owned(),
                peer.named_by.clone(),
                peer.last_contact_ms
                    .map_or_else(|| "never".to_owned(), show),
            ]
        };
        let rows: Vec<_> = listed.peers.iter().map(row).collect();
        table(["DOMAIN", "STATUS", "NAMED BY", "LAST CONTACT"], &rows)
    })
}

async fn one(door: &mut Door, request: Request, output: Output) -> Result<(), Report> {
    let Answer::Peer(peer) = door.ask(request).await? else {
        return Err(other_answer());
    };
    output.show(&peer, text)
}

fn text(peer: &Peer) -> String {
    let or = |value: &Option<String>, none: &str| value.clone().unwrap_or_else(|| none.to_owned());
    let day = |day: Option<u64>| day.map_or_else(|| "never".to_owned(), show);
    let mut text = format!(
        "Domain         {}\nStatus         {}\nNamed by       {}\nEndpoint       {}\nDomain key     \
         {}\nFirst contact  {}\nLast contact   {}\n",
        peer.domain,
        standing(peer.standing),
        peer.named_by,
        or(&peer.endpoint, "found at first contact"),
        or(&peer.domain_key, "pinned at first contact"),
        day(peer.first_contact_ms),
        day(peer.last_contact_ms),
    );
    if let Some(until) = peer.previous_key_until_ms {
        text.push_str(&format!("Key before     accepted until {}\n", show(until)));
    }
    text
}

const fn standing(standing: PeerStanding) -> &'static str {
    match standing {
        PeerStanding::Active => "active",
        PeerStanding::Pending => "pending",
        PeerStanding::Blocked => "blocked",
    }
}

async fn remove(door: &mut Door, domain: String, output: Output) -> Result<(), Report> {
    let Answer::PeerRemoved(removed) = door.ask(Request::RemovePeer { domain }).await? else {
        return Err(other_answer());
    };
    output.show(&Removed { removed }, |Removed { removed }| {
        let domain = &removed.domain;
        format!("{domain} is forgotten with its key. Under the policy `open` it may come back.\n")
    })
}

/// Says what would happen, and does nothing.
async fn ask_back(door: &mut Door, domain: String) -> Result<(), Report> {
    let Answer::Peer(peer) = door.ask(Request::ShowPeer { domain }).await? else {
        return Err(other_answer());
    };
    let message = format!(
        "this would forget {} and its pinned key; the next contact would be trusted as a first one",
        peer.domain
    );
    Err(Report::new(message).hint("repeat the command with --yes, or use `peer block`"))
}

async fn ping(door: &mut Door, domain: String, output: Output) -> Result<(), Report> {
    let Answer::Pinged(ping) = door.ask(Request::PingPeer { domain }).await? else {
        return Err(other_answer());
    };
    output.show(&ping, |ping| {
        format!(
            "{} answered, signed, after {} ms\n",
            ping.domain, ping.milliseconds
        )
    })
}
