//! The page that `nanoseg controller` serves, asked as browsers ask, and looked at with one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::panic, reason = "a test says why it cannot go on")]

mod browser;
mod folder;
mod growing;
mod http;
mod looking;
mod many;
mod names;
mod pictures;
mod serving;
mod shop;
mod slow;
mod strangers;

use std::time::Duration;

/// How long anything is waited for, on a machine that does a lot beside.
const PATIENCE: Duration = Duration::from_mins(1);
