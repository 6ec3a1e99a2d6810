//! demo
use std::path::PathBuf;
use anyhow::Result;
use nanoseg_lab::app::App;
pub(crate) fn run(_app: &App, _intruder: &str, _out: Option<PathBuf>) -> Result<()> { Ok(()) }
