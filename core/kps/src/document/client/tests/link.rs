//! A way to a server that can be cut.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the connections through a [`Proxy`] are to do.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Those of before this number are cut.
    Open(u64),
    /// Nothing passes, and no new one is taken.
    Held,
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(super) async fn start(to: impl Into<String>) -> Proxy {
        let to: Arc<str> = to.into().into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way::Open(0));
        let watch = way.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let (to, mut way) = (to.clone(), watch.clone());
                tokio::spawn(async move {
                    // The sender lives as long as the proxy.
                    let began = way.wait_for(|way| *way != Way::Held).await.map(|way| *way);
                    let Ok(began) = began else { return };
                    let Ok(mut to) = TcpStream::connect(&*to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = way.wait_for(|way| *way != began) => {}
                    }
                });
            }
        });
        Proxy { address, way, task }
    }

    /// Every connection ends; new ones are taken.
    pub(super) fn cut(&self) {
        self.way.send_modify(|way| {
            *way = match way {
                Way::Open(number) => Way::Open(*number + 1),
                Way::Held => Way::Held,
            };
        });
    }

    /// Every connection ends, and new ones wait.
    pub(super) fn hold(&self) {
        self.way.send_replace(Way::Held);
    }

    /// They do not wait any more.
    pub(super) fn go_on(&self) {
        self.way.send_replace(Way::Open(u64::MAX));
    }
}
