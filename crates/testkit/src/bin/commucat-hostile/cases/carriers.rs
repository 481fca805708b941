//! Empty yet.
use crate::suite::Suite;
use anyhow::Result;
pub(super) async fn run(_: &mut Suite) -> Result<()> {
    Ok(())
}
