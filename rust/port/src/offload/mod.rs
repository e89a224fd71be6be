//! What network cards do for kernels, done here: checksums, segmentation and its inverse.
//!
//! With a `virtio_net_hdr` in front, the kernel hands over and takes "super-frames": one header and up to 64 KiB of
//! payload that stand for many frames of a TCP or UDP flow. [`split`] makes the frames, [`join`] makes super-frames.
//! Everything here is pure: no I/O, no clock, no state outside the arguments.

pub mod checksum;
mod headers;
pub mod join;
pub mod split;
#[cfg(target_os = "linux")]
pub(crate) mod taken;
#[cfg(test)]
mod tests;
pub mod vnet;

/// The longest untagged frame an interface of that IP MTU sends, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn max_frame_len(mtu: u32) -> usize {
    mtu as usize + headers::ETHERNET
}
