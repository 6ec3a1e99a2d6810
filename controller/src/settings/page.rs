//! Arguments of the page that the controller serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::page::{Listen, PageSettings};

/// Where the page is, and who may look at it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The page")]
pub struct PageArguments {
    /// Where people look at map, Segments and violations with a browser, or `off` [default: 127.0.0.1:8080, if it is free]
    #[arg(long, value_name = "ADDRESS|off")]
    pub page_listen: Option<Where>,
    /// The page may be reached from elsewhere; it needs --page-token-file, and something before it that speaks TLS
    #[arg(long, requires_all = ["page_listen", "page_token_file"])]
    pub page_exposed: bool,
    /// File of the token that a browser has to show, at least 32 characters; `openssl rand -hex 32` makes one
    #[arg(long, value_name = "FILE")]
    pub page_token_file: Option<PathBuf>,
    /// Name by which browsers know the page, beside addresses and localhost. Can be given several times
    #[arg(long, value_name = "NAME")]
    pub page_host: Vec<String>,
}

/// An address, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where(Listen);

impl FromStr for Where {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(Listen::Off)),
            address => address
                .parse::<SocketAddr>()
                .map(|address| Self(Listen::At(address)))
                .map_err(|error| format!("{error} (write for example 127.0.0.1:8080, or off)")),
        }
    }
}

impl From<PageArguments> for PageSettings {
    fn from(arguments: PageArguments) -> Self {
        let PageArguments {
            page_listen,
            page_exposed,
            page_token_file,
            page_host,
        } = arguments;
        Self {
            listen: page_listen.map_or(Listen::Usual, |Where(listen)| listen),
            exposed: page_exposed,
            token: page_token_file,
            hosts: page_host,
        }
    }
}
