//! How every command that needs a server reaches it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kps_proto::Result;

use super::{duration, inbox::Inbox};
use crate::{
    Bridge, ConnectOptions,
    net::{Ca, TlsOptions},
    runtime,
};

/// Which server, and who asks.
#[derive(Args, Clone)]
pub(super) struct Link {
    /// The server
    #[arg(long, env = "KPS_URL", default_value = "ws://127.0.0.1:9313")]
    pub(super) url: String,
    /// Shown to the server
    #[arg(long, env = "KPS_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// The client id wanted
    #[arg(long)]
    pub(super) id: Option<String>,
    /// A certificate authority to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// How long connecting may take
    #[arg(long, value_parser = duration, default_value = "5s", value_name = "TIME")]
    pub(super) connect_timeout: Duration,
}

/// How long closing waits for what is not sent yet.
const CLOSE: Duration = Duration::from_secs(10);

impl Link {
    pub(super) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            id: self.id.clone(),
            token: self.token.clone(),
            agent: concat!("kps-cli/", env!("CARGO_PKG_VERSION")).into(),
            timeout: self.connect_timeout,
            tls: TlsOptions { ca: self.ca.clone().map(Ca::File), ..TlsOptions::default() },
            ..ConnectOptions::new(self.url.clone())
        }
    }

    /// A connected client, with the inbox its events go to.
    pub(super) fn connect(&self) -> Result<(Bridge, Inbox)> {
        let bridge = Bridge::start(self.options())?;
        let inbox = Inbox::new(&bridge);
        if let Err(error) = runtime::handle().block_on(bridge.ready()) {
            close(&bridge);
            return Err(error);
        }
        Ok((bridge, inbox))
    }
}

/// Sends what waits, and says goodbye. Says on standard error what was left behind.
pub(super) fn close(bridge: &Bridge) {
    let report = runtime::handle().block_on(bridge.close(CLOSE));
    if !report.abandoned.is_empty() {
        eprintln!("kps: {} messages could not be sent", report.abandoned.len());
    }
}
