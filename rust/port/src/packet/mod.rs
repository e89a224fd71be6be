//! An existing interface, as a port of the LAN behind it: AF_PACKET (`packet(7)`, `linux/if_packet.h`).

mod auxdata;
mod receive;
mod send;

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use libc::{c_int, socklen_t};
use softlan_wire::Mac;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::timeout,
};

use crate::{
    FrameBatch, Interface, InterfaceFacts, Port, PortCounters, PortCountersSnapshot, PortError, SendOutcome,
    offload::{max_frame_len, taken::Taken},
};
use receive::{Received, Receiver};

/// `linux/if_packet.h`: not in every version of the libc crate.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Bytes asked for the socket's queues. Reading keeps up with the wire; this bridges the moments in which the
/// process does not run.
const QUEUE_BYTES: c_int = 8 * 1024 * 1024;

/// How often an interface that is down is looked at: the kernel does not wake a reader when one is removed that was
/// down before.
const DOWN_CHECK: Duration = Duration::from_millis(500);

/// How to open a [`PacketSocket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketOptions {
    /// Receive frames to every address. The kernel undoes it when the socket closes, whatever closed it.
    pub promiscuous: bool,
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self { promiscuous: true }
    }
}

/// A socket on an interface, open but not yet tied to a runtime.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    interface: Interface,
    facts: InterfaceFacts,
}

impl PacketSocket {
    /// Opens a socket that receives all frames that come in through `interface`, and none of those that leave.
    ///
    /// Frames of this machine's own network stack on that interface leave, so they are not seen: the machine itself
    /// is not part of the LAN it makes a port to.
    ///
    /// # Errors
    /// [`PortError::NameInvalid`], [`PortError::InterfaceMissing`], [`PortError::InterfaceDown`],
    /// [`PortError::NotEthernet`], [`PortError::NoPrivilege`], [`PortError::Unsupported`], or what the kernel said.
    pub fn open(interface: &str, options: PacketOptions) -> Result<Self, PortError> {
        let interface = Interface::by_name(interface)?;
        let facts = interface.facts()?;
        if !facts.up {
            return Err(PortError::InterfaceDown { name: facts.name });
        }
        // Protocol 0 receives nothing: frames of other interfaces must not come in before the socket is bound.
        // SAFETY: no pointers; the result is checked below.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        if fd < 0 {
            return Err(PortError::last("open a packet socket"));
        }
        // SAFETY: a file descriptor just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let on: c_int = 1;
        set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)
            .map_err(|_| PortError::Unsupported { feature: "PACKET_VNET_HDR on packet sockets" })?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)
            .map_err(|_| PortError::Unsupported { feature: "PACKET_AUXDATA on packet sockets" })?;
        // Linux 4.20 and later; before that `recv` sorts out what leaves.
        let _ = set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &on);
        for (forced, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Beyond the system's limit it takes CAP_NET_ADMIN; a smaller queue works too.
            let _ = set(&fd, libc::SOL_SOCKET, forced, &QUEUE_BYTES)
                .or_else(|_| set(&fd, libc::SOL_SOCKET, plain, &QUEUE_BYTES));
        }
        if options.promiscuous {
            let membership = libc::packet_mreq {
                mr_ifindex: interface.index() as c_int,
                mr_type: libc::PACKET_MR_PROMISC as _,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
                .map_err(|error| PortError::io("receive all frames of the interface", error))?;
        }
        bind(&fd, interface.index())?;
        Ok(Self { fd, interface, facts })
    }

    /// What the interface was like when the socket was opened.
    pub fn facts(&self) -> &InterfaceFacts {
        &self.facts
    }

    /// The interface's settings.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Ties the socket to the tokio runtime of the caller.
    ///
    /// # Errors
    /// When the runtime cannot watch the file descriptor.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn into_port(self) -> Result<PacketPort, PortError> {
        // SAFETY: an OwnedFd is open and stays the same until the AsyncFd, its owner from here on, is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) }
            .map_err(|error| PortError::io("watch the packet socket", error.into()))?;
        Ok(PacketPort {
            fd,
            mtu: AtomicU32::new(self.facts.mtu),
            up: watch::Sender::new(true),
            taken: Taken::new(true),
            interface: self.interface,
            receiver: Mutex::new(Receiver::new()),
            counters: PortCounters::default(),
        })
    }
}

fn set<T>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> std::io::Result<()> {
    let len = mem::size_of::<T>() as socklen_t;
    // SAFETY: the pointer and length are those of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn bind(fd: &OwnedFd, index: u32) -> Result<(), PortError> {
    // SAFETY: a plain old data structure, for which all zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = mem::size_of_val(&address) as socklen_t;
    // SAFETY: the pointer and length are those of `address`, which outlives the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(PortError::last("bind a packet socket")) }
}

/// A socket on an interface, tied to a runtime.
#[derive(Debug)]
pub struct PacketPort {
    fd: AsyncFd<OwnedFd>,
    interface: Interface,
    /// The receive buffers, used again and again. Held during `recv`'s system call only, never across an await.
    receiver: Mutex<Receiver>,
    /// The interface's MTU as last seen: segments longer than it allows must not hide in super-frames.
    mtu: AtomicU32,
    /// Whether the interface was up when last looked at.
    up: watch::Sender<bool>,
    /// The super-frames the kernel takes.
    taken: Taken,
    counters: PortCounters,
}

impl PacketPort {
    /// The interface's settings.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    fn look_at_mtu(&self) {
        if let Ok(mtu) = self.interface.mtu() {
            self.mtu.store(mtu, Relaxed);
        }
    }

    fn look_whether_up(&self) {
        let up = self.interface.is_up();
        self.up.send_if_modified(|known| std::mem::replace(known, up) != up);
    }

    /// Adds what the kernel lost since it was last asked: reading the number sets it back to zero.
    fn count_lost(&self) {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = mem::size_of_val(&statistics) as socklen_t;
        // SAFETY: the pointers are to `statistics` and its length, which outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                &mut len,
            )
        };
        if result == 0 {
            PortCounters::add(&self.counters.received_lost, statistics.tp_drops as usize);
        }
    }
}

impl Port for PacketPort {
    async fn recv(&self, batch: &mut FrameBatch) -> Result<(), PortError> {
        // A port that always has frames must not keep its runtime's other tasks from running.
        tokio::task::coop::consume_budget().await;
        let before = batch.len();
        loop {
            let readable = self.fd.ready(Interest::READABLE | Interest::ERROR);
            let readable = if !*self.up.borrow() {
                match timeout(DOWN_CHECK, readable).await {
                    Ok(readable) => readable,
                    Err(_) if !self.interface.exists() => return Err(self.interface.gone()),
                    Err(_) => {
                        self.look_whether_up();
                        continue;
                    }
                }
            } else {
                readable.await
            };
            let mut ready = readable.map_err(|error| PortError::io("wait for the packet socket", error))?;
            let received = {
                let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
                receiver.receive(self.fd.get_ref(), batch, &self.counters)?
            };
            match received {
                Received::Some => {
                    // A LAN that talks never lets the wait above run out.
                    let was_down = !*self.up.borrow();
                    if was_down {
                        self.look_whether_up();
                    }
                }
                Received::Nothing => ready.clear_ready(),
                Received::Down => {
                    if !self.interface.exists() {
                        return Err(self.interface.gone());
                    }
                    self.look_whether_up();
                    self.look_at_mtu();
                }
            }
            if batch.len() > before {
                return Ok(());
            }
        }
    }

    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError> {
        let max_frame = max_frame_len(self.mtu.load(Relaxed));
        let sent = send::send(self.fd.get_ref(), frames, max_frame, &self.taken, &self.counters);
        if sent.too_long || sent.down {
            self.look_at_mtu();
        }
        if sent.down {
            // The socket's one word that it went down may have come here, and not to `recv`.
            self.look_whether_up();
        }
        if sent.gone && !self.interface.exists() {
            return Err(self.interface.gone());
        }
        Ok(sent.outcome)
    }

    fn description(&self) -> String {
        format!("interface {}", self.interface.name())
    }

    fn address(&self) -> Option<Mac> {
        self.interface.mac().ok()
    }

    fn up(&self) -> Option<watch::Receiver<bool>> {
        Some(self.up.subscribe())
    }

    fn counters(&self) -> PortCountersSnapshot {
        self.count_lost();
        // Counters are read now and then for as long as the port lives: the moment to notice another MTU.
        self.look_at_mtu();
        self.counters.snapshot()
    }
}
