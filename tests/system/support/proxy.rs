//! A TCP proxy between inosec and PostgreSQL for faults the server can't be asked to make: cutting
//! the connection between COMMIT and its answer, and being slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Faults {
    /// Cut after forwarding this many further COMMITs (0: none).
    cuts: AtomicU32,
    made: AtomicU32,
    /// Bytes per second from client to server (0: unlimited).
    bandwidth: AtomicU64,
}

pub struct Proxy {
    pub port: u16,
    faults: Arc<Faults>,
}

impl Proxy {
    /// Listens on a free port and forwards to the server of this URL.
    pub async fn start(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!("{url}") };
        let target = format!("{host}:{}", config.get_ports().first().copied().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&target).await {
                    tokio::spawn(forward(client, server, Arc::clone(&shared)));
                }
            }
        });
        Self { port, faults }
    }

    /// The URL through the proxy.
    pub fn url(&self, url: &str) -> String {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let user = config.get_user().unwrap_or("postgres");
        format!("postgres://{user}@127.0.0.1:{}/{}", self.port, config.get_dbname().unwrap())
    }

    /// Cuts the connection after each of the next `times` COMMITs reached the server, before the
    /// answer comes back.
    pub fn cut_commits(&self, times: u32) {
        self.faults.cuts.store(times, Ordering::SeqCst);
    }

    /// How many connections were cut so far.
    pub fn cuts_made(&self) -> u32 {
        self.faults.made.load(Ordering::SeqCst)
    }

    /// Lets only so many bytes a second through to the server; 0 lifts the limit.
    pub fn limit(&self, bytes_per_second: u64) {
        self.faults.bandwidth.store(bytes_per_second, Ordering::SeqCst);
    }
}

async fn forward(client: TcpStream, server: TcpStream, faults: Arc<Faults>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let silent = AtomicBool::new(false);
    tokio::select! {
        () = requests(from_client, to_server, &faults, &silent) => {}
        () = answers(from_server, to_client, &silent) => {}
    }
}

/// Client to server. Returns, which closes both sides, after a COMMIT that is to be cut; from before
/// it is forwarded, no answer goes back.
async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    faults: &Faults,
    silent: &AtomicBool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        let bytes = &buffer[..read];
        let commit = bytes.windows(6).any(|window| window.eq_ignore_ascii_case(b"COMMIT"));
        let cut = commit && take_one(&faults.cuts);
        silent.store(cut, Ordering::SeqCst);
        if server.write_all(bytes).await.is_err() {
            return;
        }
        if cut {
            faults.made.fetch_add(1, Ordering::SeqCst);
            // Long enough for the server to have committed.
            tokio::time::sleep(Duration::from_millis(300)).await;
            return;
        }
        let bandwidth = faults.bandwidth.load(Ordering::SeqCst);
        if bandwidth > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / bandwidth as f64)).await;
        }
    }
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
}

/// Server to client.
async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, silent: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = server.read(&mut buffer).await {
        if silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if client.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
