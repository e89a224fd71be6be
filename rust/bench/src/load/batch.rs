//! Many UDP packets a system call: `recvmmsg(2)` and `sendmmsg(2)` over one set of buffers, with or without GRO and GSO (`udp(7)`).

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// Messages a call.
const MESSAGES: usize = 32;
/// Bytes of control data a message: one `cmsghdr` with an int, with room to spare.
const CONTROL: usize = 64;

/// Control data, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Buffers for one call in either direction.
pub struct Batch {
    offloads: bool,
    room: usize,
    buffers: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

/// Where one message came from or goes to, as the kernel writes it: address and port in network order.
pub type Name = (u32, u16);

impl Batch {
    /// For super-packets of 64 KiB with `offloads`, for ordinary ones without.
    pub fn new(offloads: bool) -> Self {
        let room = if offloads { 1 << 16 } else { 2048 };
        // SAFETY: plain old data, for which all zeros are valid.
        let (name, vector, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            offloads,
            room,
            buffers: vec![0; MESSAGES * room],
            names: vec![name; MESSAGES],
            controls: vec![Control([0; CONTROL]); MESSAGES],
            vectors: vec![vector; MESSAGES],
            messages: vec![message; MESSAGES],
        }
    }

    /// Waits for a first packet and takes what is there; gives the number of messages.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for index in 0..MESSAGES {
            self.point(index, self.room, if self.offloads { CONTROL } else { 0 });
        }
        // SAFETY: `point` made every message refer to buffers of ours that are not moved before the call returns.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                MESSAGES as _,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }

    /// Who sent message `index`.
    pub fn name(&self, index: usize) -> Name {
        (self.names[index].sin_addr.s_addr, self.names[index].sin_port)
    }

    /// Sends the first `count` messages as they came, each to what `partner` says of its sender; where that is nobody, it is dropped.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn forward(
        &mut self,
        socket: &UdpSocket,
        count: usize,
        partner: impl Fn(Name) -> Option<Name>,
    ) -> io::Result<()> {
        let mut kept = 0;
        for index in 0..count {
            let Some((address, port)) = partner(self.name(index)) else { continue };
            let len = self.messages[index].msg_len as usize;
            let segment = self.segment(index).filter(|&segment| usize::from(segment) < len);
            self.point(index, len, 0);
            self.names[index].sin_addr.s_addr = address;
            self.names[index].sin_port = port;
            if let Some(segment) = segment {
                self.set_segment(index, segment);
            }
            self.messages.swap(kept, index);
            kept += 1;
        }
        let mut sent = 0;
        while sent < kept {
            let rest = &mut self.messages[sent..kept];
            // SAFETY: every message refers to buffers of ours that are not moved before the call returns.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, 0) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
            sent += done as usize;
        }
        Ok(())
    }

    /// Makes message `index` refer to `len` bytes of its buffer and `control` bytes of control data.
    fn point(&mut self, index: usize, len: usize, control: usize) {
        self.vectors[index] = libc::iovec {
            iov_base: self.buffers[index * self.room..][..len].as_mut_ptr().cast(),
            iov_len: len,
        };
        let header = &mut self.messages[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut self.names[index]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
        header.msg_iov = &raw mut self.vectors[index];
        header.msg_iovlen = 1;
        header.msg_control =
            if control == 0 { ptr::null_mut() } else { self.controls[index].0.as_mut_ptr().cast() };
        header.msg_controllen = control as _;
        header.msg_flags = 0;
    }

    /// The segment size the kernel noted on a received message (`UDP_GRO`).
    fn segment(&self, index: usize) -> Option<u16> {
        let header = &self.messages[index].msg_hdr;
        // SAFETY: the header's control pointer and length are ours, as the kernel left them.
        let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
        if control.cmsg_level != libc::SOL_UDP || control.cmsg_type != libc::UDP_GRO {
            return None;
        }
        // SAFETY: UDP_GRO carries an int, maybe not aligned.
        let size = unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast::<libc::c_int>()) };
        u16::try_from(size).ok()
    }

    /// Tells the kernel to cut message `index` (`UDP_SEGMENT`).
    fn set_segment(&mut self, index: usize, segment: u16) {
        let header = &mut self.messages[index].msg_hdr;
        header.msg_control = self.controls[index].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        // SAFETY: CONTROL bytes, aligned, hold a cmsghdr and an u16.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::SOL_UDP;
            (*control).cmsg_type = libc::UDP_SEGMENT;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as _) as _;
            ptr::write_unaligned(libc::CMSG_DATA(control).cast::<u16>(), segment);
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as _) as _;
        }
    }
}
