//! A TCP link that a case may cut, freeze and restore.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::{JoinHandle, spawn_local},
};

pub(crate) struct Link {
    pub(crate) address: String,
    refusing: Cell<bool>,
    frozen: watch::Sender<bool>,
    pumps: RefCell<Vec<JoinHandle<()>>>,
}

impl Link {
    /// Forwards a port of 127.0.0.1 to `target`.
    pub(crate) async fn open(target: String, cut: bool, frozen: bool) -> Rc<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Rc::new(Link {
            address: listener.local_addr().unwrap().to_string(),
            refusing: Cell::new(cut),
            frozen: watch::Sender::new(frozen),
            pumps: RefCell::default(),
        });
        let acceptor = link.clone();
        spawn_local(async move {
            while let Ok((near, _)) = listener.accept().await {
                if acceptor.refusing.get() {
                    continue;
                }
                if let Ok(far) = TcpStream::connect(&target).await {
                    acceptor.join(near, far);
                }
            }
        });
        link
    }

    fn join(&self, near: TcpStream, far: TcpStream) {
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let mut pumps = self.pumps.borrow_mut();
        pumps.push(spawn_local(pump(near_read, far_write, self.frozen.subscribe())));
        pumps.push(spawn_local(pump(far_read, near_write, self.frozen.subscribe())));
    }

    /// Breaks every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.refusing.set(true);
        self.pumps.borrow_mut().drain(..).for_each(|pump| pump.abort());
    }

    pub(crate) fn restore(&self) {
        self.refusing.set(false);
    }

    /// Passes nothing on while `frozen`; connections stay up.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

async fn pump(
    mut source: tcp::OwnedReadHalf,
    mut sink: tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        let flowing = frozen.wait_for(|frozen| !*frozen).await.is_ok();
        if !flowing || sink.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
