//! A UDP socket with the kernel's segmentation (UDP_SEGMENT, UDP_GRO: `linux/udp.h`), and waiting for descriptors.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};

/// The longest UDP payload on a path of 1500 bytes: what may be a segment.
pub const MAX_SEGMENT: usize = 1472;
/// Segments the kernel takes in one send (UDP_MAX_SEGMENTS was 64 up to Linux 6.x).
pub const MAX_SEGMENTS: usize = 64;
/// Bytes of one send that are sure to fit an IP packet.
pub const MAX_SEND: usize = 65_000;
/// What one receive may give.
pub const RECEIVE_BUFFER: usize = 65_536;

const QUEUE_BYTES: c_int = 8 << 20;
/// Bytes of a control buffer that holds one number.
const CONTROL: usize = 64;

#[repr(align(8))]
struct Control([u8; CONTROL]);

/// The socket. Sends wait for room, receives do not wait.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
}

/// One receive: how many bytes, in segments of which size, from where.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub len: usize,
    pub segment: usize,
    pub from: SocketAddrV4,
}

impl Udp {
    /// Opens a socket there, with deep queues; `gro`: several datagrams of one size may come at once.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn bind(at: SocketAddrV4, gro: bool) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        for (forced, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Beyond the system's limit it takes CAP_NET_ADMIN; a smaller queue works too.
            let _ = set(&socket, libc::SOL_SOCKET, forced, QUEUE_BYTES)
                .or_else(|_| set(&socket, libc::SOL_SOCKET, plain, QUEUE_BYTES));
        }
        // Path MTU discovery off: what is too long goes in IP fragments, as the peers measured beside it do.
        set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        if gro {
            set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        }
        Ok(Self { socket })
    }

    /// Opens a socket on any port that speaks to `to` alone.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connect(to: SocketAddrV4, gro: bool) -> io::Result<Self> {
        let made = Self::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), gro)?;
        made.socket.connect(to)?;
        Ok(made)
    }

    /// Takes what has come; `None` when nothing has.
    ///
    /// # Errors
    /// What the kernel said, but for answers of ICMP to earlier sends.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = Control([0; CONTROL]);
        // SAFETY: zeros are valid values of these plain structs.
        let (mut name, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { mem::zeroed() };
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in>() as socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL;
        // SAFETY: everything the message points to outlives the call.
        let len = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if len < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        let len = len as usize;
        let mut segment = len;
        // SAFETY: the control buffer was filled by recvmsg just now; the macros walk it within its length.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_UDP && (*header).cmsg_type == libc::UDP_GRO {
                    segment = ptr::read_unaligned(libc::CMSG_DATA(header).cast::<c_int>()) as usize;
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        let from = SocketAddrV4::new(u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port));
        Ok(Some(Received { len, segment, from }))
    }

    /// Sends `parts` one after the other, cut into datagrams of `segment` bytes by the kernel; waits for room. What the
    /// kernel refuses is lost, as on a wire.
    pub fn send(&self, parts: &mut [libc::iovec], segment: usize, to: Option<SocketAddrV4>) {
        let mut control = Control([0; CONTROL]);
        // SAFETY: zeros are valid values of these plain structs.
        let (mut name, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { mem::zeroed() };
        if let Some(to) = to {
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            message.msg_name = (&raw mut name).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in>() as socklen_t;
        }
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        let total: usize = parts.iter().map(|part| part.iov_len).sum();
        if total > segment {
            message.msg_control = control.0.as_mut_ptr().cast();
            // SAFETY: arithmetic only.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as usize;
            // SAFETY: the control buffer has room for one header with a u16, and is aligned.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_UDP;
                (*header).cmsg_type = libc::UDP_SEGMENT;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
                ptr::write_unaligned(libc::CMSG_DATA(header).cast::<u16>(), segment as u16);
            }
        }
        // SAFETY: everything the message points to outlives the call.
        unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, 0) };
    }

    /// Sends one datagram.
    pub fn send_one(&self, data: &[u8], to: Option<SocketAddrV4>) {
        self.send(&mut [part(data)], data.len(), to);
    }
}

impl AsRawFd for Udp {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A piece of a message to send; it must not outlive `data`.
pub fn part(data: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: data.as_ptr().cast::<c_void>().cast_mut(), iov_len: data.len() }
}

/// Waits until one of the descriptors can be read, at most `within`.
///
/// # Errors
/// What the kernel said, but for signals.
pub fn wait_readable<const N: usize>(descriptors: [RawFd; N], within: Duration) -> io::Result<()> {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let limit = libc::timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    // SAFETY: the array and the limit outlive the call; no signal mask is given.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, &raw const limit, ptr::null()) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

/// Lets this thread wake up when it asked to, not up to 50 microseconds later (PR_SET_TIMERSLACK, prctl(2)).
pub fn wake_on_time() {
    // SAFETY: no pointers; a refusal leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0, 0, 0) };
}

fn set(socket: &UdpSocket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value outlives the call and has the length told.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
