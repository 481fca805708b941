//! Domains that the server asks, and that answer wrongly, late, at length, or not at all.

use anyhow::Result;

use super::{counted, ping, record};
use crate::peer::{Document, Peer, Reply};
use crate::suite::Suite;

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    for document in [
        Document::Status(404),
        Document::Status(500),
        Document::Redirect,
        Document::Nonsense,
        Document::Long,
        Document::Endless,
        Document::Silent,
        Document::OtherDomain,
        Document::OtherSigner,
    ] {
        let name = format!("a document that is {document:?}");
        fails(suite, &name, (document, Reply::Good)).await?;
    }
    for (reply, cause) in [
        (Reply::Status(403), "answer-status"),
        (Reply::Status(500), "answer-status"),
        (Reply::Redirect, "answer-status"),
        (Reply::Nonsense, "answer-malformed"),
        (Reply::Endless, "answer-too-large"),
        (Reply::OtherKey, "answer-signature"),
        (Reply::OtherPurpose, "answer-signature"),
        (Reply::Bent(0), "answer-misdirected"),
        (Reply::Bent(1), "answer-misdirected"),
        (Reply::Bent(2), "answer-misdirected"),
        (Reply::Bent(3), "answer-malformed"),
        (Reply::Bent(4), "answer-unknown-key"),
        (Reply::OtherEvent, "answer-misdirected"),
    ] {
        let name = format!("an answer that is {reply:?}");
        let before = counted(&suite.world.server, cause).await?;
        fails(suite, &name, (Document::Good, reply)).await?;
        let is_counted = counted(&suite.world.server, cause).await? > before;
        let outcome = is_counted.then_some(()).ok_or(format!("not as {cause}"));
        record(suite, &format!("{name}, counted"), outcome).await?;
    }
    let silent = (Document::Good, Reply::Silent);
    fails(suite, "an answer that does not come", silent).await?;
    good(suite).await?;
    nobody(suite).await
}

/// A domain that answers like this is not believed.
async fn fails(suite: &mut Suite, name: &str, (document, reply): (Document, Reply)) -> Result<()> {
    let liar = Peer::appear(&suite.world.friend, document, reply).await?;
    let outcome = match ping(&suite.world.server, liar.domain.as_str()).await {
        Ok(()) => Err("it is believed".to_owned()),
        Err(_) => Ok(()),
    };
    record(suite, name, outcome).await
}

/// The same domain is believed if it answers as it should; another one at its place is not.
async fn good(suite: &mut Suite) -> Result<()> {
    let honest = Peer::appear(&suite.world.friend, Document::Good, Reply::Good).await?;
    let asked = ping(&suite.world.server, honest.domain.as_str()).await;
    let outcome = asked.map_err(|error| format!("{error:#}"));
    record(suite, "an answer as it should be", outcome).await?;
    let taken = honest.replaced(&suite.world.friend).await?;
    let outcome = match ping(&suite.world.server, taken.domain.as_str()).await {
        Ok(()) => Err("it is believed".to_owned()),
        Err(_) => Ok(()),
    };
    record(suite, "another key at a known domain", outcome).await
}

async fn nobody(suite: &mut Suite) -> Result<()> {
    let outcome = match ping(&suite.world.server, "localhost:1").await {
        Ok(()) => Err("nobody is believed".to_owned()),
        Err(_) => Ok(()),
    };
    record(suite, "a domain where nobody listens", outcome).await
}
