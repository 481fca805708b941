//! `device`: listed, shown, shut out.

use commucat_admin::{Answer, Device, DeviceDetails, Hidden, Request};
use commucat_config::Config;
use serde::Serialize;

use crate::args;
use crate::door::{Door, other_answer};
use crate::output::{Output, table};
use crate::report::Report;
use crate::time::show;

#[derive(Serialize)]
struct Listed {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: Device,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    command: args::Device,
    output: Output,
) -> Result<(), Report> {
    let mut door = Door::open(config).await?;
    let done = match command {
        args::Device::List => list(&mut door, output).await,
        args::Device::Show { device } => show_one(&mut door, &device, output).await,
        args::Device::Revoke { device, yes: true } => revoke(&mut door, &device, output).await,
        args::Device::Revoke { device, yes: false } => ask_back(&mut door, &device).await,
    };
    door.close().await;
    done
}

async fn list(door: &mut Door, output: Output) -> Result<(), Report> {
    let mut listed = Listed {
        devices: Vec::new(),
    };
    loop {
        let after = listed.devices.last().map(|device| device.device.clone());
        let Answer::Devices(page) = door.ask(Request::ListDevices { after }).await? else {
            return Err(other_answer());
        };
        let is_end = !page.more || page.devices.is_empty();
        listed.devices.extend(page.devices);
        if is_end {
            break;
        }
    }
    output.show(&listed, |listed| {
        if listed.devices.is_empty() {
            return "no devices; `commucat-cli invite create` makes an invite\n".to_owned();
        }
        let row = |device: &Device| {
            [
                device.device.as_str().to_owned(),
                device.account.as_str().to_owned(),
                show(device.not_after_ms),
            ]
        };
        let rows: Vec<_> = listed.devices.iter().map(row).collect();
        table(["DEVICE", "ACCOUNT", "CERTIFIED UNTIL"], &rows)
    })
}

async fn find(door: &mut Door, device: &str) -> Result<DeviceDetails, Report> {
    let device = Hidden::new(device);
    let Answer::Device(details) = door.ask(Request::ShowDevice { device }).await? else {
        return Err(other_answer());
    };
    Ok(details)
}

async fn show_one(door: &mut Door, device: &str, output: Output) -> Result<(), Report> {
    let details = find(door, device).await?;
    output.show(&details, text)
}

fn text(details: &DeviceDetails) -> String {
    let device = &details.device;
    let last_resort = if details.last_resort { "yes" } else { "no" };
    format!(
        "Device        {}\nAccount       {}\nCertified     {} to {}\nWaiting       {} messages, {} \
         bytes\nKey packages  {} (last resort: {last_resort})\n",
        device.device.as_str(),
        device.account.as_str(),
        show(device.not_before_ms),
        show(device.not_after_ms),
        details.queue_entries,
        details.queue_bytes,
        details.key_packages,
    )
}

async fn revoke(door: &mut Door, device: &str, output: Output) -> Result<(), Report> {
    let device = Hidden::new(device);
    let Answer::DeviceRevoked(revoked) = door.ask(Request::RevokeDevice { device }).await? else {
        return Err(other_answer());
    };
    output.show(&Revoked { revoked }, |Revoked { revoked }| {
        format!(
            "Device {} is shut out. Its session ended, its queue and key packages are deleted.\n",
            revoked.device.as_str()
        )
    })
}

/// Says what would happen, and does nothing.
async fn ask_back(door: &mut Door, device: &str) -> Result<(), Report> {
    let details = find(door, device).await?;
    let message = format!(
        "this would shut the device out for good and delete {} waiting messages and {} key packages",
        details.queue_entries, details.key_packages
    );
    Err(Report::new(message).hint("repeat the command with --yes"))
}
