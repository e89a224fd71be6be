//! A UDP socket for QUIC that asks nothing of the system but to send and to receive.
//!
//! quinn's own socket wants ECN marks, packet information and segmentation offload, and gives up where the system refuses one of the
//! options it cannot do without: an odd filter driver under Windows, Wine, a sandbox. QUIC needs none of them (RFC 9000 section 13.4 lets
//! an endpoint that cannot read ECN marks go without), so such a machine plays all the same, at a system call a packet.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

/// A socket tied to the tokio runtime it was made in.
#[derive(Debug)]
pub(crate) struct PlainUdp {
    socket: UdpSocket,
    may_fragment: bool,
}

impl PlainUdp {
    /// Ties a bound socket to the runtime of the caller. Path MTU discovery works where the system can be kept from fragmenting.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let may_fragment = !never_fragment(&socket);
        Ok(Self { socket: UdpSocket::from_std(socket)?, may_fragment })
    }
}

/// Whether a socket that the system would not set up for quinn may still do as a plain one: an option was refused, the socket itself is well.
pub(crate) fn is_refused_option(error: &io::Error) -> bool {
    // Wine says 10042 and 10045; the others are what the options' manual pages allow for.
    #[cfg(windows)]
    const REFUSALS: [i32; 3] = [10022, 10042, 10045]; // WSAEINVAL, WSAENOPROTOOPT, WSAEOPNOTSUPP
    #[cfg(not(windows))]
    const REFUSALS: [i32; 4] = [libc::EINVAL, libc::ENOPROTOOPT, libc::EOPNOTSUPP, libc::ENOSYS];
    error.raw_os_error().is_some_and(|code| REFUSALS.contains(&code))
}

impl AsyncUdpSocket for PlainUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // `max_transmit_segments` is 1: the contents are one packet.
        match self.socket.try_send_to(transmit.contents, transmit.destination) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // Anything else is a packet lost on its first hop (no route for a moment, a probe too long for the interface, an answer of
            // ICMP to an earlier packet): QUIC's loss recovery and timeouts judge it, as they do for quinn's own socket.
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let mut read = ReadBuf::new(buffer);
            let from = loop {
                read.clear();
                match self.socket.poll_recv_from(context, &mut read) {
                    Poll::Ready(Ok(from)) => break from,
                    Poll::Ready(Err(error)) if is_lost_packet(&error) => {}
                    // What has come is handed on first; a lasting error comes again.
                    Poll::Ready(Err(_)) | Poll::Pending if count > 0 => return Poll::Ready(Ok(count)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            };
            let len = read.filled().len();
            *meta = RecvMeta { addr: from, len, stride: len, ..RecvMeta::default() };
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Errors that stand for one packet, ours or another's, and not for the socket.
fn is_lost_packet(error: &io::Error) -> bool {
    // Windows reports ICMP's answers to what was sent before (WSAECONNRESET, WSAENETRESET), and packets longer than the buffer
    // (WSAEMSGSIZE, 10040), which are none of QUIC's.
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
        || (cfg!(windows) && matches!(error.raw_os_error(), Some(10040 | 10052)))
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One task's wait for room in the socket's send buffer.
struct Poller {
    socket: Arc<PlainUdp>,
    waiting: Option<Waiting>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move { socket.socket.ready(Interest::WRITABLE).await.map(drop) })
        });
        let result = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(result)
    }
}

/// Keeps the system from fragmenting what the socket sends, so that a probe that is too long is lost instead of cut up (RFC 9000 section 14).
/// An IPv6 socket that takes IPv4 as well needs both families' options. True when the socket's own family agreed.
fn never_fragment(socket: &std::net::UdpSocket) -> bool {
    let Ok(local) = socket.local_addr() else { return false };
    let v4 = options::set_v4(socket);
    if local.is_ipv4() { v4 } else { options::set_v6(socket) }
}

#[cfg(target_os = "linux")]
mod options {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use libc::c_int;

    pub(super) fn set_v4(socket: &UdpSocket) -> bool {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    }

    pub(super) fn set_v6(socket: &UdpSocket) -> bool {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    }

    fn set(socket: &UdpSocket, level: c_int, option: c_int, value: c_int) -> bool {
        let len = size_of::<c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open while `socket` is borrowed; `value` is a live int of `len` bytes, which the call only reads.
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) == 0 }
    }
}

#[cfg(windows)]
mod options {
    use std::net::UdpSocket;
    use std::os::windows::io::AsRawSocket;

    use windows_sys::Win32::Networking::WinSock::{
        IP_DONTFRAGMENT, IPPROTO_IP, IPPROTO_IPV6, IPV6_DONTFRAG, setsockopt,
    };

    pub(super) fn set_v4(socket: &UdpSocket) -> bool {
        set(socket, IPPROTO_IP, IP_DONTFRAGMENT)
    }

    pub(super) fn set_v6(socket: &UdpSocket) -> bool {
        set(socket, IPPROTO_IPV6, IPV6_DONTFRAG)
    }

    fn set(socket: &UdpSocket, level: i32, option: i32) -> bool {
        let (yes, len) = (1_u32, size_of::<u32>() as i32);
        // SAFETY: the socket is open while borrowed; `yes` is a live DWORD of `len` bytes, which the call only reads.
        unsafe {
            setsockopt(socket.as_raw_socket() as usize, level, option, (&raw const yes).cast(), len) == 0
        }
    }
}

#[cfg(not(any(target_os = "linux", windows)))]
mod options {
    use std::net::UdpSocket;

    // Unknown here: without path MTU discovery, frames travel as fragments.
    pub(super) fn set_v4(_socket: &UdpSocket) -> bool {
        false
    }

    pub(super) fn set_v6(_socket: &UdpSocket) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
