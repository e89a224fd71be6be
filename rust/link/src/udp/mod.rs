//! The UDP socket under QUIC: bursts with one system call where the system offers that, one packet a call where it does not.
//!
//! The full kind reads and writes ECN marks and uses segmentation offload (`UDP_SEGMENT`, `UDP_GRO` in `linux/udp.h`). The plain kind is for
//! systems that refuse one of the options the full kind needs: an odd filter driver under Windows, Wine, a sandbox. QUIC needs none of them
//! (RFC 9000 section 13.4 lets an endpoint that cannot read ECN marks go without), so such a machine plays all the same.

mod plain_options;
#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::transport::UdpKind;

/// Wanted kernel buffer a direction, in bytes: 20 ms at 1.6 Gbit/s. The kernel may give less (net.core.rmem_max).
const SOCKET_BUFFER: usize = 4 << 20;
/// UDP payload that one `UDP_SEGMENT` send may carry: an IPv4 packet's 65,535 bytes less its headers.
const MAX_BURST: usize = 65_507;

/// How long a socket goes without bursts after the first that was refused, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A socket tied to the tokio runtime it was made in. Nothing here blocks.
#[derive(Debug)]
pub(crate) struct UdpIo {
    socket: UdpSocket,
    /// `None`: a plain socket.
    offloads: Option<Offloads>,
    may_fragment: bool,
    plain_because: Option<String>,
}

/// What the system can do for the socket, as far as it has not failed.
#[derive(Debug)]
struct Offloads {
    bursts: UdpSocketState,
    /// For single packets, whose failures say nothing about bursts: anybody can have one of ours fail, with an address of theirs that nothing can be sent to.
    singles: UdpSocketState,
    /// Packets of a burst when nothing had failed.
    whole: usize,
    given_up: Option<GivenUp>,
}

/// Bursts that the system has refused: it may not manage them, or an address of ours was gone for a moment.
#[derive(Debug, Clone, Copy)]
struct GivenUp {
    until: Instant,
    pause: Duration,
}

impl Offloads {
    fn new(socket: &std::net::UdpSocket) -> io::Result<Self> {
        let [bursts, singles] = [UdpSocketState::new(socket.into())?, UdpSocketState::new(socket.into())?];
        let whole = bursts.max_gso_segments();
        Ok(Self { bursts, singles, whole, given_up: None })
    }

    /// Whether the system has refused something since they were made. Single packets may have lost their ECN marks then.
    fn is_reduced(&self) -> bool {
        [&self.bursts, &self.singles].iter().any(|state| state.max_gso_segments() < self.whole)
    }
}

impl UdpIo {
    /// Binds `local`. An IPv6 address takes IPv4 as well; where the system has no IPv6, `[::]` falls back to `0.0.0.0`.
    ///
    /// # Errors
    /// When the address cannot be had, or the runtime cannot watch the socket.
    pub(crate) fn bind(local: SocketAddr, kind: UdpKind) -> io::Result<Self> {
        let because = match kind {
            UdpKind::Plain => "the settings ask for it".to_owned(),
            UdpKind::Auto => {
                let socket = bind_any(local)?;
                match Offloads::new(&socket) {
                    Ok(offloads) => {
                        let may_fragment = offloads.bursts.may_fragment();
                        let socket = UdpSocket::from_std(socket)?;
                        return Ok(Self {
                            socket,
                            offloads: Some(offloads),
                            may_fragment,
                            plain_because: None,
                        });
                    }
                    Err(error) if is_refused_option(&error) => {
                        format!("this system refuses a socket option: {error}")
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let socket = bind_any(local)?;
        let may_fragment = !plain_options::never_fragment(&socket);
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, offloads: None, may_fragment, plain_because: Some(because) })
    }

    /// Why the socket is a plain one; `None` when it is not.
    pub(crate) fn plain_because(&self) -> Option<&str> {
        self.plain_because.as_deref()
    }

    /// Whether the system may cut up packets that are too long for the path: path MTU discovery cannot work then.
    pub(crate) fn may_fragment(&self) -> bool {
        self.may_fragment
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Packets of `size` bytes that one [`send`](Self::send) may carry. It falls to 1 when the system refuses more, until [`renew`](Self::renew).
    pub(crate) fn burst(&self, size: usize) -> usize {
        let segments = self.offloads.as_ref().map_or(1, |offloads| offloads.bursts.max_gso_segments());
        segments.min(MAX_BURST / size.max(1)).max(1)
    }

    /// Packets that one received buffer may hold.
    pub(crate) fn packets_a_buffer(&self) -> usize {
        self.offloads.as_ref().map_or(1, |offloads| offloads.bursts.gro_segments())
    }

    /// Tries bursts again some time after the system has refused one: at first after a second, and twice as long each time that it refuses again.
    ///
    /// A refusal costs one burst, and without another try every packet would take a system call of its own for good.
    pub(crate) fn renew(&mut self, now: Instant) {
        let Some(offloads) = &mut self.offloads else { return };
        let refused = offloads.is_reduced();
        match offloads.given_up {
            None if refused => {
                offloads.given_up = Some(GivenUp { until: now + FIRST_PAUSE, pause: FIRST_PAUSE });
            }
            Some(GivenUp { until, pause }) if refused && until <= now => {
                for state in [&mut offloads.bursts, &mut offloads.singles] {
                    if let Ok(renewed) = UdpSocketState::new((&self.socket).into()) {
                        *state = renewed;
                    }
                }
                let pause = (2 * pause).min(LONGEST_PAUSE);
                offloads.given_up = Some(GivenUp { until: now + pause, pause });
            }
            // It has gone well for as long as it had gone badly.
            Some(GivenUp { until, .. }) if !refused && until <= now => offloads.given_up = None,
            _ => {}
        }
    }

    /// Whether [`renew`](Self::renew) has something to think about.
    pub(crate) fn is_to_renew(&self) -> bool {
        self.offloads.as_ref().is_some_and(|offloads| offloads.given_up.is_some() || offloads.is_reduced())
    }

    /// Sends a packet or a burst of them.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] only. Anything else is a packet lost on its first hop (no route for a moment, a probe too long for the
    /// interface, an answer of ICMP to an earlier packet): QUIC's loss recovery and timeouts judge it.
    pub(crate) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = match &self.offloads {
            Some(Offloads { bursts, singles, .. }) => {
                let state = if transmit.segment_size.is_some() { bursts } else { singles };
                self.socket.try_io(Interest::WRITABLE, || state.send((&self.socket).into(), transmit))
            }
            None => self.socket.try_send_to(transmit.contents, transmit.destination).map(drop),
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Receives into `buffers`; gives the number of them that were filled, at least one.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; others when the socket is of no more use.
    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        loop {
            let received = match &self.offloads {
                Some(Offloads { bursts, .. }) => self
                    .socket
                    .try_io(Interest::READABLE, || bursts.recv((&self.socket).into(), buffers, meta)),
                None => self.receive_plain(buffers, meta),
            };
            match received {
                Err(error) if is_lost_packet(&error) => {}
                other => return other,
            }
        }
    }

    fn receive_plain(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            match self.socket.try_recv_from(buffer) {
                Ok((len, addr)) => {
                    *meta = RecvMeta { addr, len, stride: len, ..RecvMeta::default() };
                    count += 1;
                }
                // What has come is handed on first; a lasting error comes again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Ready when there may be something to receive.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Ready when there may be room to send.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(context)
    }
}

/// Whether a socket that the system would not set up in full may still do as a plain one: an option was refused, the socket itself is well.
fn is_refused_option(error: &io::Error) -> bool {
    // Wine says 10042 and 10045; the others are what the options' manual pages allow for.
    #[cfg(windows)]
    const REFUSALS: [i32; 3] = [10022, 10042, 10045]; // WSAEINVAL, WSAENOPROTOOPT, WSAEOPNOTSUPP
    #[cfg(not(windows))]
    const REFUSALS: [i32; 4] = [libc::EINVAL, libc::ENOPROTOOPT, libc::EOPNOTSUPP, libc::ENOSYS];
    error.raw_os_error().is_some_and(|code| REFUSALS.contains(&code))
}

/// Errors that stand for one packet, ours or another's, and not for the socket.
fn is_lost_packet(error: &io::Error) -> bool {
    // Windows reports ICMP's answers to what was sent before (WSAECONNRESET, WSAENETRESET), and packets longer than the buffer
    // (WSAEMSGSIZE, 10040), which are none of QUIC's.
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
        || (cfg!(windows) && matches!(error.raw_os_error(), Some(10040 | 10052)))
}

fn bind_any(local: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let bound = bind(local);
    let fallback = match local {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Some(SocketAddr::from(([0, 0, 0, 0], v6.port()))),
        _ => None,
    };
    match (bound, fallback) {
        (Err(error), Some(v4)) if error.kind() != io::ErrorKind::AddrInUse => bind(v4),
        (result, _) => result,
    }
}

fn bind(local: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() && local.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel caps these at its own limits, and a smaller buffer only drops earlier.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}
