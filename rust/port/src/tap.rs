//! A virtual adapter of this machine: `/dev/net/tun` in TAP mode, with offloads (`linux/if_tun.h`).

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{Mutex, PoisonError},
};

use libc::{c_short, c_uint, c_ulong};
use softlan_wire::Mac;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    FrameBatch, Interface, MAX_FRAME_LEN, MIN_FRAME_LEN, Port, PortCounters, PortCountersSnapshot, PortError,
    SendOutcome,
    counters::count_split_error,
    interface::{ioctl, request},
    offload::{
        join::{Joiner, MAX_PARTS, Message},
        split::split,
        taken::Taken,
        vnet::{Gso, VNET_HEADER_LEN, VnetHeader},
    },
};

/// A super-frame: 64 KiB of IP packet (the device's default `gso_max_size`), Ethernet header, tags, with room to
/// notice a longer one.
const READ_BUFFER: usize = VNET_HEADER_LEN + 65536 + 64;

/// Reads of one `recv` call, so that what was read moves on before more is.
const READS_A_CALL: usize = 64;
/// Bytes after which a `recv` call reads no more: about what the tunnel seals at a time.
const BYTES_A_CALL: usize = 256 * 1024;

/// Interface names are made by the kernel from this when none is asked for.
const NAME_PATTERN: &str = "softlan%d";

const TUN_F_CSUM: c_uint = 0x01;
const TUN_F_TSO4: c_uint = 0x02;
const TUN_F_TSO6: c_uint = 0x04;
const TUN_F_TSO_ECN: c_uint = 0x08;
const TUN_F_USO4: c_uint = 0x20;
const TUN_F_USO6: c_uint = 0x40;

/// Which work the kernel leaves to the reader of a TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapOffloads {
    /// Frames come whole and finished.
    None,
    /// Checksums, and TCP segmentation.
    Tcp,
    /// Also UDP segmentation (Linux 6.2 and later).
    TcpAndUdp,
}

/// A TAP adapter, open but not yet tied to a runtime. The adapter disappears when this, or the port made of it, is
/// dropped, also on `kill -9`.
#[derive(Debug)]
pub struct TapDevice {
    fd: OwnedFd,
    interface: Interface,
    offloads: TapOffloads,
}

impl TapDevice {
    /// Creates the adapter, or takes over a persistent TAP of that name that nobody uses, sets it up and brings it
    /// up. Without `name` the kernel chooses: `softlan0`, `softlan1`, ... `mtu` is the IP MTU in bytes.
    ///
    /// # Errors
    /// [`PortError::NoTunDevice`], [`PortError::NoPrivilege`], [`PortError::NameTaken`], [`PortError::NameInvalid`],
    /// [`PortError::MtuRefused`], or what the kernel said.
    pub fn create(name: Option<&str>, mac: Mac, mtu: u16) -> Result<Self, PortError> {
        let mut request = request(name.unwrap_or(NAME_PATTERN))?;
        let fd = open_tun()?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as c_short;
        ioctl(&fd, libc::TUNSETIFF as c_ulong, &mut request).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EINVAL) => {
                PortError::NameTaken { name: name.unwrap_or(NAME_PATTERN).to_owned() }
            }
            _ => PortError::io("create a TAP adapter", error),
        })?;
        let name: Vec<u8> =
            request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
        let interface = Interface::by_name(&String::from_utf8_lossy(&name))?;

        let len = VNET_HEADER_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int; `len` outlives the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) } < 0 {
            return Err(PortError::last("set the TAP's offload header"));
        }
        let offloads = set_offloads(&fd);

        interface.set_mac(mac)?;
        interface.set_mtu(mtu)?;
        interface.set_up(true)?;
        Ok(Self { fd, interface, offloads })
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        self.interface.name()
    }

    /// The kernel's number for the adapter.
    pub fn index(&self) -> u32 {
        self.interface.index()
    }

    /// The adapter's settings. A clone of it works as long as the adapter lives, also after
    /// [`TapDevice::into_port`].
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The offloads this kernel agreed to.
    pub fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    /// Sets the IP MTU, in bytes.
    ///
    /// # Errors
    /// As [`Interface::set_mtu`].
    pub fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        self.interface.set_mtu(mtu)
    }

    /// Brings the adapter up or down.
    ///
    /// # Errors
    /// As [`Interface::set_up`].
    pub fn set_up(&self, up: bool) -> Result<(), PortError> {
        self.interface.set_up(up)
    }

    /// Ties the adapter to the tokio runtime of the caller.
    ///
    /// # Errors
    /// When the runtime cannot watch the file descriptor.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn into_port(self) -> Result<TapPort, PortError> {
        // SAFETY: an OwnedFd is open and stays the same until the AsyncFd, its owner from here on, is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) }
            .map_err(|error| PortError::io("watch the TAP adapter", error.into()))?;
        let reader = Mutex::new(vec![0; READ_BUFFER].into_boxed_slice());
        Ok(TapPort {
            fd,
            interface: self.interface,
            reader,
            // A kernel that leaves UDP segmentation to the reader takes it from the writer too (Linux 6.2 brought both).
            taken: Taken::new(self.offloads == TapOffloads::TcpAndUdp),
            counters: PortCounters::default(),
        })
    }
}

fn open_tun() -> Result<OwnedFd, PortError> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun") {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => PortError::NoTunDevice,
            _ => PortError::io("open /dev/net/tun", error),
        }),
    }
}

/// Asks for as many offloads as the kernel has: each set is refused whole when one of it is unknown.
fn set_offloads(fd: &OwnedFd) -> TapOffloads {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let sets = [
        (TapOffloads::TcpAndUdp, tcp | TUN_F_USO4 | TUN_F_USO6),
        (TapOffloads::Tcp, tcp),
        (TapOffloads::None, 0),
    ];
    for (offloads, bits) in sets {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(bits)) } >= 0 {
            return offloads;
        }
    }
    TapOffloads::None
}

/// A TAP adapter tied to a runtime.
#[derive(Debug)]
pub struct TapPort {
    fd: AsyncFd<OwnedFd>,
    interface: Interface,
    /// The read buffer, used again and again. Held during `recv`'s reads only, never across an await.
    reader: Mutex<Box<[u8]>>,
    /// The super-frames the kernel takes.
    taken: Taken,
    counters: PortCounters,
}

impl TapPort {
    /// The adapter's settings.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Reads until the kernel has no more, or enough has been read. True: the kernel has no more.
    fn read(&self, batch: &mut FrameBatch) -> Result<bool, PortError> {
        let mut buffer = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let full = batch.bytes() + BYTES_A_CALL;
        for _ in 0..READS_A_CALL {
            // SAFETY: the pointer and length are those of `buffer`, which nobody else has while it is locked.
            let len = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if len < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(true),
                    Some(libc::EINTR) => continue,
                    // A super-frame for which this kernel has no virtio_net_hdr (tun_put_user): it is lost.
                    Some(libc::EINVAL) => {
                        PortCounters::add(&self.counters.received_malformed, 1);
                        continue;
                    }
                    // EBADFD: the adapter was deleted under us (tun_chr_read_iter).
                    Some(libc::EBADFD) => return Err(self.interface.gone()),
                    // tun_ring_recv says EFAULT when the adapter is being taken down for good.
                    _ if !self.interface.exists() => return Err(self.interface.gone()),
                    _ => return Err(PortError::io("read from the TAP adapter", error)),
                }
            }
            self.take(&mut buffer, len as usize, batch);
            if batch.bytes() >= full {
                break;
            }
        }
        Ok(false)
    }

    fn take(&self, buffer: &mut [u8], len: usize, batch: &mut FrameBatch) {
        // A read that fills the buffer has been cut: the driver does not say by how much.
        if len >= buffer.len() {
            return PortCounters::add(&self.counters.received_too_long, 1);
        }
        let Some((header, frame)) = buffer[..len].split_first_chunk_mut::<VNET_HEADER_LEN>() else {
            return PortCounters::add(&self.counters.received_runt, 1);
        };
        let vnet = VnetHeader::decode(header);
        match split(&vnet, frame, batch) {
            Ok(frames) => {
                PortCounters::add(&self.counters.frames_received, frames);
                PortCounters::add(&self.counters.super_frames_received, usize::from(vnet.gso != Gso::None));
            }
            Err(error) => count_split_error(&self.counters, error),
        }
    }

    fn write(&self, message: &Message, parts: &[&[u8]]) -> io::Result<()> {
        let vnet = message.vnet.encode();
        let mut slices = [io::IoSlice::new(&[]); MAX_PARTS + 2];
        slices[0] = io::IoSlice::new(&vnet);
        let mut count = 1;
        if message.header_len > 0 {
            slices[1] = io::IoSlice::new(message.headers());
            count = 2;
        }
        for part in parts {
            slices[count] = io::IoSlice::new(part);
            count += 1;
        }
        loop {
            // SAFETY: IoSlice has the layout of iovec (its documentation says so); all slices outlive the call.
            let written =
                unsafe { libc::writev(self.fd.as_raw_fd(), slices.as_ptr().cast(), count as libc::c_int) };
            if written >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
    }
}

impl Port for TapPort {
    async fn recv(&self, batch: &mut FrameBatch) -> Result<(), PortError> {
        // A port that always has frames must not keep its runtime's other tasks from running.
        tokio::task::coop::consume_budget().await;
        let before = batch.len();
        loop {
            let mut ready = self
                .fd
                .ready(Interest::READABLE | Interest::ERROR)
                .await
                .map_err(|error| PortError::io("wait for the TAP adapter", error))?;
            if self.read(batch)? {
                ready.clear_ready();
            }
            if batch.len() > before {
                return Ok(());
            }
        }
    }

    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError> {
        let mut outcome = SendOutcome::default();
        let mut parts = Vec::with_capacity(MAX_PARTS);
        // A TAP takes any segment size: its MTU binds the other direction.
        let mut joiner = Joiner::new(frames, MAX_FRAME_LEN, self.taken.kinds());
        while let Some(message) = joiner.next(&mut parts) {
            let frames = message.frames;
            let counters = &self.counters;
            let misshapen =
                message.header_len == 0 && !(MIN_FRAME_LEN..=MAX_FRAME_LEN).contains(&parts[0].len());
            if misshapen {
                outcome.failed += frames;
                PortCounters::add(&counters.sent_failed, frames);
            } else {
                match self.write(&message, &parts) {
                    Ok(()) => {
                        outcome.accepted += frames;
                        PortCounters::add(&counters.frames_sent, frames);
                        PortCounters::add(&counters.super_frames_sent, usize::from(message.header_len > 0));
                    }
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                            outcome.refused += frames;
                            PortCounters::add(&counters.sent_queue_full, frames);
                        }
                        Some(libc::EBADFD) => return Err(self.interface.gone()),
                        // tun_get_user says EIO while the adapter is down.
                        Some(libc::EIO) => {
                            outcome.failed += frames;
                            PortCounters::add(&counters.sent_interface_down, frames);
                        }
                        number => {
                            if number == Some(libc::EINVAL) {
                                self.taken.refused(&message);
                            }
                            outcome.failed += frames;
                            PortCounters::add(&counters.sent_failed, frames);
                        }
                    },
                }
            }
            parts.clear();
        }
        Ok(outcome)
    }

    fn description(&self) -> String {
        format!("tap {}", self.interface.name())
    }

    fn counters(&self) -> PortCountersSnapshot {
        self.counters.snapshot()
    }
}
