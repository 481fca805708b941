//! The cases, in parts.

mod carriers;
mod clear;
mod floods;
mod frames;
mod groups;
mod identity;
mod payloads;
mod peers;
mod tunnel;

use anyhow::Result;
use commucat_testkit::program::say;

use crate::suite::Suite;

/// Runs the parts named, or all.
pub(crate) async fn run(suite: &mut Suite, parts: &[String]) -> Result<()> {
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    for name in [
        "clear", "identity", "tunnel", "frames", "payloads", "groups", "carriers", "peers",
        "floods",
    ] {
        if !wanted(name) {
            continue;
        }
        let (before, begun) = (suite.count(), std::time::Instant::now());
        match name {
            "clear" => clear::run(suite).await?,
            "identity" => identity::run(suite).await?,
            "tunnel" => tunnel::run(suite).await?,
            "frames" => frames::run(suite).await?,
            "payloads" => payloads::run(suite).await?,
            "groups" => groups::run(suite).await?,
            "carriers" => carriers::run(suite).await?,
            "peers" => peers::run(suite).await?,
            _ => floods::run(suite).await?,
        }
        let cases = suite.count() - before;
        let seconds = begun.elapsed().as_secs_f32();
        say(&format!("{name}: {cases} cases in {seconds:.1} s"));
    }
    Ok(())
}
