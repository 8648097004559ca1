//! A forwarder before a server that can be cut off: connections get no answer, open ones say nothing
//! more, and nothing is closed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

pub(super) struct CutOff {
    pub(super) address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl CutOff {
    pub(super) async fn before(server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.94.4.1:0".parse().unwrap()).unwrap();
        // A short queue is soon full.
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, watched) = watch::channel(false);
        tokio::spawn(accept(listener, server, watched));
        Self { address, is_cut }
    }

    pub(super) async fn begin(&self) {
        self.is_cut.send_replace(true);
        let address = self.address;
        let mut watched = self.is_cut.subscribe();
        // Fills the queue, so that no further connection gets an answer.
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Ok(Ok(connected)) =
                tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
            {
                waiting.push(connected);
            }
            let _ = watched.wait_for(|is_cut| !is_cut).await;
        });
    }

    pub(super) fn end(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, mut watched: watch::Receiver<bool>) {
    loop {
        let _ = watched.wait_for(|is_cut| !is_cut).await;
        tokio::select! {
            accepted = listener.accept() => {
                tokio::spawn(forward(accepted.unwrap().0, server, watched.clone()));
            }
            changed = watched.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, mut watched: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        tokio::select! {
            _ = &mut copying => return,
            cut = watched.wait_for(|is_cut| *is_cut) => if cut.is_err() {
                return;
            },
        }
        if watched.wait_for(|is_cut| !is_cut).await.is_err() {
            return;
        }
    }
}
