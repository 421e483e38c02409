//! Stands between a client and a server, hands every byte on, and knows which connections the client has open.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::copy,
    net::{TcpListener, TcpStream},
    sync::Notify,
};

#[derive(Debug, Clone)]
pub(crate) struct Tap {
    pub(crate) url: String,
    open: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    closed: Arc<Notify>,
}

impl Tap {
    /// A tap before the server at `url` (`http://HOST:PORT`).
    pub(crate) async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            open: Arc::default(),
            opened: Arc::default(),
            closed: Arc::default(),
        };
        let (server, seen) = (url.trim_start_matches("http://").to_owned(), tap.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                seen.open.fetch_add(1, Ordering::SeqCst);
                seen.opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(seen.clone().pass(client, server.clone()));
            }
        });
        tap
    }

    async fn pass(self, client: TcpStream, server: String) {
        let server = TcpStream::connect(server).await.unwrap();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let back = tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
        // Ends when the client closes, or has gone.
        let _ = copy(&mut from_client, &mut to_server).await;
        back.abort();
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.closed.notify_waiters();
    }

    /// How many connections the client has made.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Waits until the client has no connection open.
    pub(crate) async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            closed.await;
        }
    }
}
