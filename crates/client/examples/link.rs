//! Two devices of one account in one process: how a program links a device.
//!
//! ```sh
//! cargo run -p commucat-client --example link -- ./phone ./laptop 'commucat://localhost:8443/#i=...'
//! ```

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use commucat_client::{Client, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [phone, laptop, invite] = arguments.as_slice() else {
        return Err("usage: link PHONE_PROFILE LAPTOP_PROFILE INVITE".into());
    };
    let phone = Client::join(Settings::new(phone), invite).await?;
    phone.caught_up(Duration::from_secs(30)).await?;

    // The code and the answer travel by any channel: a QR code, a paste, here a variable.
    let laptop = Settings::new(laptop);
    let code = Client::begin_link(&laptop)?;
    let answer = phone.link_device(&code).await?;
    let laptop = Client::finish_link(laptop, &answer).await?;
    laptop.caught_up(Duration::from_secs(30)).await?;

    let mut out = std::io::stdout();
    for device in laptop.devices().await? {
        let mark = if device.current { "  (the laptop)" } else { "" };
        writeln!(out, "{}{mark}", device.id.as_str())?;
    }
    laptop.shutdown().await;
    phone.shutdown().await;
    Ok(())
}
