//! The `lab` command.

use std::process::ExitCode;

use anyhow::Result;
use nanoseg_lab::app::App;
use nanoseg_lab::small::{Lab, Options};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let start = std::time::Instant::now();
    let app = App::read(std::path::Path::new("tests/lab/shop.yaml"))?;
    let lab = Lab::up(&app, &Options::new("dev"))?;
    println!("up in {:?}: {:?}", start.elapsed(), lab.place());
    let mut signals = signal_hook::iterator::Signals::new([2, 15, 10])?;
    for signal in signals.forever() {
        if signal == 10 {
            lab.say("shop/intruder")?;
        } else {
            break;
        }
    }
    lab.down()?;
    Ok(())
}
