//! A bus of a client's own: everything works without a server elsewhere, with the same code.

use std::sync::Arc;

use kps_proto::Result;

use super::{Server, ServerOptions, attach};
use crate::{
    client::{Bridge, ConnectOptions},
    net::{
        BoxFuture, Connection, TlsOptions, Transport,
        mem::{MemTransport, PRIVATE},
    },
};

/// Starts a client, as [`Bridge::start`]; with the URL `mem://` on a private bus, which nobody else
/// reaches and which lives as long as the client.
///
/// ```
/// # async fn run() -> kps::Result<()> {
/// let client = kps::Client::from(kps::server::connect(kps::ConnectOptions::new("mem://"))?);
/// client.bridge().ready().await?;
/// let mut greetings = client.subscribe("greetings").await?;
/// client.publish("greetings", "hello")?;
/// assert_eq!(&*greetings.message().await.expect("it is subscribed").payload.bytes, b"hello");
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
///
/// # Errors
/// As [`Bridge::start`].
pub fn connect(options: ConnectOptions) -> Result<Bridge> {
    if options.transport.is_some() || options.url != PRIVATE {
        return Bridge::start(options);
    }
    let server = Server::start(ServerOptions::listen(PRIVATE))?;
    let transport: Option<Arc<dyn Transport>> = Some(Arc::new(PrivateBus(server)));
    Bridge::start(ConnectOptions { transport, ..options })
}

/// The way to a server that nobody else holds.
#[derive(Debug)]
struct PrivateBus(Server);

impl Transport for PrivateBus {
    fn connect<'a>(
        &'a self,
        url: &'a str,
        tls: &'a TlsOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>>> {
        let hub = Arc::downgrade(&self.0.0.hub);
        Box::pin(async move { MemTransport(move |end| attach(&hub, end)).connect(url, tls).await })
    }
}
