//! A network interface of this machine and the settings softlan reads and changes on it (`netdevice(7)`).

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use libc::{c_int, c_short, ifreq};
use softlan_wire::Mac;

use crate::PortError;

/// Link type of Ethernet and of everything that looks like it (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;

/// An interface, known by its index: a rename while softlan runs does no harm.
///
/// It belongs to the network namespace of the thread that looked it up.
#[derive(Clone, Debug)]
pub struct Interface {
    socket: Arc<OwnedFd>,
    name: String,
    index: u32,
}

/// What an interface is like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name now.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its link address.
    pub mac: Mac,
    /// Longest IP packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier: cable in, other end up.
    pub running: bool,
    /// A Wi-Fi station, which as a rule cannot send frames with the addresses of others.
    pub wireless: bool,
}

impl Interface {
    /// Looks the interface up.
    ///
    /// # Errors
    /// [`PortError::NameInvalid`], [`PortError::InterfaceMissing`], or what the kernel said.
    pub fn by_name(name: &str) -> Result<Self, PortError> {
        let mut request = request(name)?;
        let socket = control_socket()?;
        match ioctl(&socket, libc::SIOCGIFINDEX as _, &mut request) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Err(PortError::InterfaceMissing { name: name.to_owned() });
            }
            Err(error) => return Err(PortError::io("look up an interface", error)),
        }
        // SAFETY: SIOCGIFINDEX filled the union's index.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(Self { socket: Arc::new(socket), name: name.to_owned(), index: index as u32 })
    }

    /// The name it had when it was looked up.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it, the same as long as it lives.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface is still there.
    pub fn exists(&self) -> bool {
        self.named().is_ok()
    }

    /// Whether the interface is there and administratively up.
    pub fn is_up(&self) -> bool {
        self.flags().is_ok_and(|flags| flags & libc::IFF_UP != 0)
    }

    /// The longest IP packet, in bytes.
    ///
    /// # Errors
    /// [`PortError::InterfaceGone`], or what the kernel said.
    pub fn mtu(&self) -> Result<u32, PortError> {
        let request = self.ask(libc::SIOCGIFMTU as _, "read an interface's MTU")?;
        // SAFETY: SIOCGIFMTU filled the union's MTU.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// The link address.
    ///
    /// # Errors
    /// [`PortError::NotEthernet`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn mac(&self) -> Result<Mac, PortError> {
        let address = self.ask(libc::SIOCGIFHWADDR as _, "read an interface's address")?;
        // SAFETY: SIOCGIFHWADDR filled the union's link address.
        let address = unsafe { address.ifr_ifru.ifru_hwaddr };
        if address.sa_family != ARPHRD_ETHER {
            return Err(PortError::NotEthernet { name: self.current_name()?, kind: address.sa_family });
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(Mac::from_bytes(mac))
    }

    /// All facts.
    ///
    /// # Errors
    /// [`PortError::NotEthernet`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn facts(&self) -> Result<InterfaceFacts, PortError> {
        let name = self.current_name()?;
        let mac = self.mac()?;
        let flags = self.flags()?;
        let sysfs = Path::new("/sys/class/net").join(&name);
        Ok(InterfaceFacts {
            index: self.index,
            mac,
            mtu: self.mtu()?,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            wireless: sysfs.join("wireless").exists() || sysfs.join("phy80211").exists(),
            name,
        })
    }

    /// Sets the longest IP packet, in bytes.
    ///
    /// # Errors
    /// [`PortError::MtuRefused`], [`PortError::NoPrivilege`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        if self.mtu()? == u32::from(mtu) {
            return Ok(());
        }
        let mut request = self.named()?;
        request.ifr_ifru.ifru_mtu = c_int::from(mtu);
        match ioctl(&self.socket, libc::SIOCSIFMTU as _, &mut request) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(PortError::MtuRefused { name: self.name.clone(), mtu })
            }
            result => result.map_err(|error| PortError::io("set an interface's MTU", error)),
        }
    }

    /// Sets the link address.
    ///
    /// # Errors
    /// [`PortError::NoPrivilege`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn set_mac(&self, mac: Mac) -> Result<(), PortError> {
        if self.mac()? == mac {
            return Ok(());
        }
        let mut request = self.named()?;
        // SAFETY: a plain old data structure, for which all zeros are valid.
        let mut address: libc::sockaddr = unsafe { mem::zeroed() };
        address.sa_family = ARPHRD_ETHER;
        for (to, from) in address.sa_data.iter_mut().zip(mac.bytes()) {
            *to = from as _;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        ioctl(&self.socket, libc::SIOCSIFHWADDR as _, &mut request)
            .map_err(|error| PortError::io("set an interface's MAC address", error))
    }

    /// Brings the interface up or down.
    ///
    /// # Errors
    /// [`PortError::NoPrivilege`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn set_up(&self, up: bool) -> Result<(), PortError> {
        let now = self.flags()?;
        let wanted = if up { now | libc::IFF_UP } else { now & !libc::IFF_UP };
        if wanted == now {
            return Ok(());
        }
        let mut request = self.named()?;
        request.ifr_ifru.ifru_flags = wanted as c_short;
        ioctl(&self.socket, libc::SIOCSIFFLAGS as _, &mut request)
            .map_err(|error| PortError::io("bring an interface up or down", error))
    }

    /// Sets how many packets (super-frames count once) may wait for a reader.
    ///
    /// # Errors
    /// [`PortError::NoPrivilege`], [`PortError::InterfaceGone`], or what the kernel said.
    pub fn set_queue_len(&self, packets: u16) -> Result<(), PortError> {
        let mut request = self.named()?;
        // ifr_qlen shares the union's integer with ifr_metric.
        request.ifr_ifru.ifru_metric = c_int::from(packets);
        ioctl(&self.socket, libc::SIOCSIFTXQLEN as _, &mut request)
            .map_err(|error| PortError::io("set an interface's queue length", error))
    }

    pub(crate) fn gone(&self) -> PortError {
        PortError::InterfaceGone { name: self.name.clone() }
    }

    fn current_name(&self) -> Result<String, PortError> {
        let request = self.named()?;
        let bytes = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
        Ok(String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned())
    }

    fn flags(&self) -> Result<c_int, PortError> {
        let request = self.ask(libc::SIOCGIFFLAGS as _, "read an interface's flags")?;
        // SAFETY: SIOCGIFFLAGS filled the union's flags.
        Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    fn ask(&self, number: libc::c_ulong, action: &'static str) -> Result<ifreq, PortError> {
        let mut request = self.named()?;
        match ioctl(&self.socket, number, &mut request) {
            Ok(()) => Ok(request),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(self.gone()),
            Err(error) => Err(PortError::io(action, error)),
        }
    }

    /// A request with the name the interface has now.
    fn named(&self) -> Result<ifreq, PortError> {
        let mut request = zero_request();
        request.ifr_ifru.ifru_ifindex = self.index as c_int;
        match ioctl(&self.socket, libc::SIOCGIFNAME as _, &mut request) {
            Ok(()) => Ok(request),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(self.gone()),
            Err(error) => Err(PortError::io("look up an interface", error)),
        }
    }
}

/// A request that names an interface.
pub(crate) fn request(name: &str) -> Result<ifreq, PortError> {
    let mut request = zero_request();
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace();
    // IFNAMSIZ counts a final zero; dev_valid_name in the Linux kernel has the same rules.
    if name.is_empty() || name == "." || name == ".." || name.len() >= libc::IFNAMSIZ || name.bytes().any(bad)
    {
        return Err(PortError::NameInvalid { name: name.to_owned() });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    Ok(request)
}

pub(crate) fn ioctl(fd: &impl AsRawFd, number: libc::c_ulong, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: all requests given here take a pointer to a `struct ifreq`, and `request` is one.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(request)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn zero_request() -> ifreq {
    // SAFETY: a plain old data structure, for which all zeros are valid.
    unsafe { mem::zeroed() }
}

fn control_socket() -> Result<OwnedFd, PortError> {
    // SAFETY: no pointers; the result is checked below.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(PortError::last("open a control socket"));
    }
    // SAFETY: a file descriptor just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be() {
        for name in ["", "a/b", "a b", "a:b", "..", "sixteen-bytes-xx", "nul\0"] {
            assert!(matches!(Interface::by_name(name), Err(PortError::NameInvalid { .. })), "{name:?}");
        }
    }

    #[test]
    fn missing_interface() {
        let error = Interface::by_name("no-such-if").unwrap_err();
        assert_eq!(error.to_string(), "there is no interface no-such-if");
        assert!(error.hint().is_some());
    }

    #[test]
    fn loopback_is_not_ethernet() {
        let loopback = Interface::by_name("lo").unwrap();
        assert!(matches!(loopback.facts(), Err(PortError::NotEthernet { kind: 772, .. })));
    }
}
