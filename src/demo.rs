//! Interim.
/// run
/// # Errors
/// never
pub async fn run(_args: crate::args::Demo) -> anyhow::Result<()> {
    Ok(())
}
