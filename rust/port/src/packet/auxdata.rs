//! What AF_PACKET tells beside a frame: the VLAN tag that the kernel took out of it.

use libc::c_int;

/// Room for one `PACKET_AUXDATA` control message: header and `struct tpacket_auxdata`, aligned.
pub(super) const CONTROL_LEN: usize = 64;

/// A control buffer, aligned as `struct cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub [u8; CONTROL_LEN]);

// linux/if_packet.h
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// The tag type of IEEE 802.1Q, which kernels before 3.14 do not tell.
const TPID_8021Q: u16 = 0x8100;

/// `struct tpacket_auxdata`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Auxdata {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// The four bytes of the tag that the kernel took out, if it did. `message` has been filled by recvmsg or recvmmsg.
pub(super) fn vlan_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel filled the control buffer of `message` and set its length; the CMSG functions stay in it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a whole header in the control buffer.
        let (level, kind, len) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        let wanted = size_of::<Auxdata>() as u32;
        // SAFETY: CMSG_LEN only computes.
        let least = unsafe { libc::CMSG_LEN(wanted) } as usize;
        #[allow(clippy::unnecessary_cast)] // the field's type differs between C libraries
        let whole = len as usize >= least;
        if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA as c_int) && whole {
            // SAFETY: the data of this message is at least as long as `Auxdata`; any bytes are a valid one.
            let auxdata = unsafe { libc::CMSG_DATA(header).cast::<Auxdata>().read_unaligned() };
            return auxdata.tag();
        }
        // SAFETY: `header` is a header of this message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

impl Auxdata {
    fn tag(&self) -> Option<[u8; 4]> {
        // Before Linux 3.0 there was no flag, only a TCI other than zero.
        if self.status & TP_STATUS_VLAN_VALID == 0 && self.vlan_tci == 0 {
            return None;
        }
        let told = self.status & TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if told { self.vlan_tpid } else { TPID_8021Q }.to_be_bytes();
        let tci = self.vlan_tci.to_be_bytes();
        Some([tpid[0], tpid[1], tci[0], tci[1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Auxdata>(), 20);
        assert_eq!(std::mem::offset_of!(Auxdata, vlan_tci), 16);
        // SAFETY: CMSG_SPACE only computes.
        assert!(unsafe { libc::CMSG_SPACE(20) } as usize <= CONTROL_LEN);
    }

    #[test]
    fn tags() {
        let mut auxdata = Auxdata { status: 1, ..Auxdata::default() };
        assert_eq!(auxdata.tag(), None);
        // Priority-tagged: VLAN 0 is a tag too.
        auxdata.status |= TP_STATUS_VLAN_VALID;
        assert_eq!(auxdata.tag(), Some([0x81, 0, 0, 0]));
        auxdata.vlan_tci = 0x6064;
        auxdata.vlan_tpid = 0x88a8;
        assert_eq!(auxdata.tag(), Some([0x81, 0, 0x60, 0x64]));
        auxdata.status |= TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(auxdata.tag(), Some([0x88, 0xa8, 0x60, 0x64]));
    }
}
