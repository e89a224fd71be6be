//! Neighbour discovery (RFC 4861): which of its messages an IPv6 packet is, and the options in it.

use crate::inspect::{ICMPV6, Upper, upper_layer};

/// Router solicitation to redirect: the five messages of neighbour discovery (RFC 4861, 4).
pub(crate) const SOLICIT_ROUTER: u8 = 133;
pub(crate) const ADVERTISE_ROUTER: u8 = 134;
pub(crate) const SOLICIT_NEIGHBOUR: u8 = 135;
pub(crate) const ADVERTISE_NEIGHBOUR: u8 = 136;
pub(crate) const REDIRECT: u8 = 137;
/// Options that hold a link-layer address: of the source, of the target (RFC 4861, 4.6.1).
pub(crate) const SOURCE_ADDRESS: u8 = 1;
pub(crate) const TARGET_ADDRESS: u8 = 2;

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Its ICMPv6 type.
    pub kind: u8,
    /// The message from its type on.
    pub bytes: &'a [u8],
    /// Whether it comes in fragments, as no host sends it and none may take it (RFC 6980, 5).
    pub is_fragment: bool,
    options_at: usize,
}

impl<'a> Message<'a> {
    /// The message in an IPv6 packet, behind whatever extension headers.
    #[inline]
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        let Upper::Protocol { number: ICMPV6, payload: bytes, is_fragment } = upper_layer(packet) else {
            return None;
        };
        let kind = *bytes.first()?;
        let options_at = match kind {
            SOLICIT_ROUTER => 8,
            ADVERTISE_ROUTER => 16,
            SOLICIT_NEIGHBOUR | ADVERTISE_NEIGHBOUR => 24,
            REDIRECT => 40,
            _ => return None,
        };
        Some(Self { kind, bytes, is_fragment, options_at })
    }

    /// Its options.
    pub fn options(self) -> Options<'a> {
        Options(Some(self.bytes.get(self.options_at..).unwrap_or_default()))
    }
}

/// Options that end nowhere: hosts discard such a message whole (RFC 4861, 6.1 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndsNowhere;

/// The options of a message, each with its kind and what follows its length, to the message's end. After one whose length is none,
/// [`EndsNowhere`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u8, &'a [u8]), EndsNowhere>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(bytes) = self.0 else {
            self.0 = Some(&[]);
            return Some(Err(EndsNowhere));
        };
        let [kind, units, rest @ ..] = bytes else { return None };
        let len = usize::from(*units) * 8;
        self.0 = bytes.get(len..).filter(|_| len > 0);
        Some(Ok((*kind, rest)))
    }
}
