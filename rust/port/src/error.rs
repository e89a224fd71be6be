//! What can go wrong between a port and its machine, in words a person can act on.

use std::io;

/// A port could not be opened, or does not work any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The interface name cannot be one: empty, longer than 15 bytes, or with a slash, colon, space or NUL.
    #[error("{name:?} cannot be an interface name: 1 to 15 characters, without '/', ':' and spaces")]
    NameInvalid {
        /// The name asked for.
        name: String,
    },
    /// There is no interface of that name.
    #[error("there is no interface {name}")]
    InterfaceMissing {
        /// The name asked for.
        name: String,
    },
    /// The interface is there and administratively down.
    #[error("interface {name} is down")]
    InterfaceDown {
        /// The interface.
        name: String,
    },
    /// The interface was there and has been removed.
    #[error("interface {name} is gone")]
    InterfaceGone {
        /// The interface.
        name: String,
    },
    /// The interface does not carry Ethernet frames.
    #[error("interface {name} is not an Ethernet interface (link type {kind})")]
    NotEthernet {
        /// The interface.
        name: String,
        /// The kernel's ARPHRD number (`linux/if_arp.h`).
        kind: u16,
    },
    /// Another program uses the TAP, or the name belongs to an interface of another kind.
    #[error("interface name {name} is taken")]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The machine has no `/dev/net/tun`.
    #[error("this machine has no /dev/net/tun")]
    NoTunDevice,
    /// The process may not do that.
    #[error("no privilege to {action}")]
    NoPrivilege {
        /// What was tried: "create a TAP", ...
        action: &'static str,
    },
    /// The interface does not take that MTU.
    #[error("interface {name} does not take an MTU of {mtu} bytes")]
    MtuRefused {
        /// The interface.
        name: String,
        /// The MTU asked for, in bytes.
        mtu: u16,
    },
    /// The kernel lacks something softlan needs.
    #[error("this kernel does not support {feature}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
    },
    /// There is no TAP-Windows6 adapter at that device path.
    #[error("there is no TAP adapter at {path}")]
    AdapterMissing {
        /// The device path.
        path: String,
    },
    /// Another program, or another part of this one, has the TAP-Windows6 adapter open.
    #[error("the TAP adapter at {path} is in use by another program")]
    AdapterBusy {
        /// The device path.
        path: String,
    },
    /// The TAP-Windows6 adapter is down, or away for a moment: disabled, restarted, asleep.
    #[error("the TAP adapter at {path} is down")]
    AdapterDown {
        /// The device path.
        path: String,
    },
    /// The port is closed, here or (a memory port) at its other end.
    #[error("the port is closed")]
    Closed,
    /// Anything else the operating system said.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl PortError {
    /// A short stable name of the kind of failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NameInvalid { .. } => "name-invalid",
            Self::InterfaceMissing { .. } => "interface-missing",
            Self::InterfaceDown { .. } => "interface-down",
            Self::InterfaceGone { .. } => "interface-gone",
            Self::NotEthernet { .. } => "not-ethernet",
            Self::NameTaken { .. } => "name-taken",
            Self::NoTunDevice => "no-tun-device",
            Self::NoPrivilege { .. } => "no-privilege",
            Self::MtuRefused { .. } => "mtu-refused",
            Self::Unsupported { .. } => "unsupported",
            Self::AdapterMissing { .. } => "adapter-missing",
            Self::AdapterBusy { .. } => "adapter-busy",
            Self::AdapterDown { .. } => "adapter-down",
            Self::Closed => "closed",
            Self::Io { .. } => "io",
        }
    }

    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::InterfaceMissing { .. } => "`ip link` lists the interfaces of this machine",
            Self::InterfaceDown { .. } => "bring it up with `ip link set dev NAME up`",
            Self::NameTaken { .. } => "choose another name, or end the program that uses it",
            Self::NoTunDevice => {
                "load the kernel's tun module (`modprobe tun`), or give the container /dev/net/tun"
            }
            Self::AdapterMissing { .. } => {
                "install the TAP-Windows6 driver (it comes with OpenVPN), or enable the adapter"
            }
            Self::AdapterBusy { .. } => "end the program that uses it, or add a second adapter",
            Self::NoPrivilege { .. } if cfg!(windows) => "run it as administrator",
            Self::NoPrivilege { .. } => "run as root, or with the capabilities CAP_NET_ADMIN and CAP_NET_RAW",
            Self::NotEthernet { .. } => "choose a wired Ethernet interface, a bridge or a veth",
            _ => return None,
        })
    }

    /// An error of the last system call of this thread.
    #[cfg(target_os = "linux")]
    pub(crate) fn last(action: &'static str) -> Self {
        Self::io(action, io::Error::last_os_error())
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn io(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPrivilege { action },
            _ => Self::Io { action, source },
        }
    }
}
