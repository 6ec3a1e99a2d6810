//! Arguments of `nanoseg ui`.

use clap::Args;

use super::access::Access;

pub(super) const UI_EXAMPLES: &str = "\
Examples:
  Find the controller, forward a port of this machine to its page, and open it:
    nanoseg ui
  At a free port, and only say where:
    nanoseg ui --no-open --port 0

It needs the right to get the Lease nanoseg-controller and to create
pods/portforward in the namespace that nanoseg runs in. Only this machine
reaches the page; it ends with Ctrl-C.";

/// Arguments of `nanoseg ui`.
#[derive(Debug, Args)]
pub struct UiArguments {
    /// Port of this machine at which the page is to be; 0 is a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Port of the page in the controller's pod, as its --page-listen has it
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub page_port: u16,
    /// Say where the page is, and open no browser
    #[arg(long)]
    pub no_open: bool,
    /// Namespace that nanoseg runs in
    #[arg(long, value_name = "NAMESPACE", default_value = "nanoseg")]
    pub own_namespace: String,
    #[command(flatten)]
    pub access: Access,
}
