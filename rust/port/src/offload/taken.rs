//! Which super-frames the kernel takes from us, as far as is known: all, until it refuses one of a kind.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{
    join::{JoinKinds, Message},
    vnet::Gso,
};

/// What is believed of one kernel and one device.
#[derive(Debug)]
pub(crate) struct Taken {
    tcp: AtomicBool,
    udp: AtomicBool,
    tagged: AtomicBool,
}

impl Taken {
    /// TCP and tagged super-frames are tried; those of UDP when `udp` says so.
    pub fn new(udp: bool) -> Self {
        Self { tcp: AtomicBool::new(true), udp: AtomicBool::new(udp), tagged: AtomicBool::new(true) }
    }

    /// What to join.
    pub fn kinds(&self) -> JoinKinds {
        let tcp = self.tcp.load(Relaxed);
        JoinKinds { tcp4: tcp, tcp6: tcp, udp: self.udp.load(Relaxed), tagged: self.tagged.load(Relaxed) }
    }

    /// The kernel did not understand this super-frame (EINVAL): no more of its kind. Whole frames say nothing.
    pub fn refused(&self, message: &Message) {
        if message.header_len == 0 {
            return;
        }
        let kind = match message.vnet.gso {
            _ if message.tagged => &self.tagged,
            Gso::Udp => &self.udp,
            _ => &self.tcp,
        };
        kind.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::join::Joiner;

    #[test]
    fn a_refusal_is_of_one_kind_only() {
        let taken = Taken::new(true);
        assert_eq!(taken.kinds(), JoinKinds::ALL);
        let frame = [0_u8; 60];
        let mut alone = Joiner::new([frame.as_slice()], 1514, JoinKinds::ALL).next(&mut Vec::new()).unwrap();
        taken.refused(&alone);
        assert_eq!(taken.kinds(), JoinKinds::ALL);
        (alone.header_len, alone.vnet.gso, alone.tagged) = (42, Gso::Udp, true);
        taken.refused(&alone);
        assert_eq!(taken.kinds(), JoinKinds { tagged: false, ..JoinKinds::ALL });
        alone.tagged = false;
        taken.refused(&alone);
        assert_eq!(taken.kinds(), JoinKinds { tagged: false, udp: false, ..JoinKinds::ALL });
        alone.vnet.gso = Gso::Tcp6;
        taken.refused(&alone);
        assert_eq!(taken.kinds(), JoinKinds::NONE);
    }
}
