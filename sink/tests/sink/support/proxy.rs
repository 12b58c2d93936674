//! A TCP proxy that loses the answer to a COMMIT: the server commits, the client never hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    pub port: u16,
    /// Cut the next connection that sends a COMMIT.
    pub cut_after_commit: Arc<AtomicBool>,
    /// Cut it before the COMMIT is passed on.
    pub cut_before_commit: Arc<AtomicBool>,
    /// Cut nothing, but keep the next COMMIT and all that follows: a network that swallows packets.
    pub swallow_commit: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a free port and forwards to `server` (host:port).
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Self {
            port: listener.local_addr().expect("an address").port(),
            cut_after_commit: Arc::default(),
            cut_before_commit: Arc::default(),
            swallow_commit: Arc::default(),
        };
        let switches =
            [&proxy.cut_after_commit, &proxy.cut_before_commit, &proxy.swallow_commit].map(Arc::clone);
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server answers");
                tokio::spawn(forward(client, server, switches.clone()));
            }
        });
        proxy
    }
}

async fn forward(client: TcpStream, server: TcpStream, [after, before, swallow]: [Arc<AtomicBool>; 3]) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        // A simple query message: 'Q', length, text. tokio-postgres sends COMMIT alone.
        let commits = buffer[..read].windows(11).any(|window| window == b"Q\0\0\0\x0bCOMMIT");
        if commits && before.swap(false, Ordering::SeqCst) {
            break;
        }
        if commits && swallow.swap(false, Ordering::SeqCst) {
            // Holds both ends open until the client gives up.
            let _ = from_client.read(&mut buffer).await;
            break;
        }
        if commits && after.swap(false, Ordering::SeqCst) {
            // Nothing more reaches the client; the server still gets its COMMIT and time to do it.
            answers.abort();
            let _ = to_server.write_all(&buffer[..read]).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            break;
        }
        if to_server.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    answers.abort();
}
