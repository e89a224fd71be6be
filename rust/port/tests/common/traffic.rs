//! Real TCP through two ports, and what was seen on the way.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use softlan_port::{FrameBatch, Port};

use super::{Namespace, frames};

/// Bytes a TCP test sends each way.
pub const STREAM: usize = 8 * 1024 * 1024;

/// What crossed a cable.
#[derive(Debug, Default)]
pub struct Seen {
    pub frames: AtomicUsize,
    pub longest: AtomicUsize,
    pub tcp_payload: AtomicUsize,
    pub tagged: AtomicUsize,
}

impl Seen {
    fn note(&self, frame: &[u8]) {
        self.frames.fetch_add(1, Relaxed);
        self.longest.fetch_max(frame.len(), Relaxed);
        if let Some(packet) = frames::check(frame) {
            if packet.protocol == 6 {
                self.tcp_payload.fetch_add(packet.payload, Relaxed);
            }
            self.tagged.fetch_add(usize::from(packet.vlan == Some(100)), Relaxed);
        }
    }
}

/// A runtime as the data plane has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Carries frames between two ports, made by `open` inside of the runtime, until the process ends.
pub fn cable<P: Port>(open: impl FnOnce() -> (P, P) + Send + 'static) -> (Arc<P>, Arc<P>, Arc<Seen>) {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let (left, right) = open();
            let (left, right, seen) = (Arc::new(left), Arc::new(right), Arc::new(Seen::default()));
            tell.send((left.clone(), right.clone(), seen.clone())).expect("listener");
            let ended = tokio::join!(carry(&*left, &*right, &seen), carry(&*right, &*left, &seen));
            println!("the cable ended: {ended:?}");
        });
    });
    told.recv().expect("cable")
}

async fn carry<P: Port>(from: &P, to: &P, seen: &Seen) -> Result<(), softlan_port::PortError> {
    let mut batch = FrameBatch::new(8);
    loop {
        from.recv(&mut batch).await?;
        batch.frames().for_each(|frame| seen.note(frame));
        to.send(batch.frames())?;
        batch.clear();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A TCP connection from the caller's namespace to `server`'s: [`STREAM`] bytes each way, compared.
pub fn tcp_both_ways(server: &Namespace, address: IpAddr) {
    let listener = server.run(move || TcpListener::bind(SocketAddr::new(address, 0)).expect("bind"));
    let port = listener.local_addr().expect("address").port();
    let echo = server.spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut bytes = vec![0; STREAM];
        stream.read_exact(&mut bytes).expect("the server reads");
        stream.write_all(&bytes).expect("the server writes");
    });
    let mut stream = TcpStream::connect(SocketAddr::new(address, port)).expect("connect");
    let sent = pattern(STREAM);
    stream.write_all(&sent).expect("the client writes");
    let mut back = vec![0; STREAM];
    stream.read_exact(&mut back).expect("the client reads");
    assert!(sent == back, "the stream came back changed");
    echo.join().expect("server");
}
