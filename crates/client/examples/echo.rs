//! A bot that sends every text back to whoever wrote it.
//!
//! ```sh
//! cargo run -p commucat-client --example echo -- ./echo-profile 'commucat://localhost:8443/#i=...'
//! cargo run -p commucat-client --example echo -- ./echo-profile      # later: the same account
//! ```

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use commucat_client::{Client, Decision, Event, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let profile = arguments.next().ok_or("usage: echo PROFILE [INVITE]")?;
    let settings = Settings::new(profile);
    let client = match arguments.next() {
        Some(invite) => Client::join(settings, &invite).await?,
        None => Client::open(settings).await?,
    };
    client.caught_up(Duration::from_secs(30)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "write to me: {}", client.me().await?.contact_link)?;

    // Listen first, then look at what arrived while nobody listened: nothing falls between.
    let mut events = client.subscribe();
    for message in client.unshown(1_000).await? {
        answer(&client, &message).await?;
    }
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            event = events.next() => match event {
                None => break,
                Some(Event::Message(message)) if !message.own => answer(&client, &message).await?,
                Some(Event::Request(request)) => {
                    // This bot talks to everybody; the start of an account id is a fine name.
                    let petname: String = request.from.as_str().chars().take(12).collect();
                    client.decide(request.from.as_str(), Decision::Accept { petname }).await?;
                }
                Some(event) => writeln!(out, "{event:?}")?,
            },
        }
    }
    client.shutdown().await;
    Ok(())
}

async fn answer(client: &Client, message: &commucat_client::Message) -> Result<(), Box<dyn Error>> {
    let conversation = data_encoding::HEXLOWER.encode(message.conversation.as_bytes());
    // The outbox is durable: once this returns, the answer will be sent, whatever happens.
    client.send(&conversation, &message.text).await?;
    client.mark_shown(vec![message.number]).await?;
    Ok(())
}
