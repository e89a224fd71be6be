//! Socket options that a plain socket sets for itself, by system.

/// Keeps the system from fragmenting what the socket sends, so that a probe that is too long is lost instead of cut up (RFC 9000 section 14).
/// An IPv6 socket that takes IPv4 as well needs both families' options. True when the socket's own family agreed.
pub(super) fn never_fragment(socket: &std::net::UdpSocket) -> bool {
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
