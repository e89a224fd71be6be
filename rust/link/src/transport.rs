//! QUIC transport parameters for carrying frames: one place for timers, MTU search, buffers and congestion control.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, CubicConfig};
use quinn_proto::{MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::calm::CalmConfig;
use crate::error::LinkError;

/// UDP payload of a 1500-byte IPv4 path: 1500 - 20 (RFC 791) - 8 (RFC 768). The MTU search never looks higher.
pub const MAX_UDP_PAYLOAD: u16 = 1472;
/// The smallest UDP payload QUIC works with (RFC 9000 section 14), where the MTU search starts.
pub const MIN_UDP_PAYLOAD: u16 = 1200;

/// Bytes of datagrams QUIC may hold that are not sent yet. The loop hands it far fewer (`engine::link`); QUIC would throw out the oldest to
/// make room, unseen.
pub(crate) const QUIC_DATAGRAM_BUFFER: usize = 256 * 1024;
/// Bytes of received datagrams that QUIC may hold, with 32 for each beyond its own. The loop takes them out after 32 KiB of packets at the latest
/// (`engine::link`), and no frame is so short that those of as much and a packet of 1500 bytes more had no room.
const QUIC_RECEIVE_BUFFER: usize = 128 * 1024;
/// Bytes of the control stream that the relay takes before they are read: several of a peer's messages. Each packet that brings some of it may keep more
/// memory than that.
pub(crate) const RELAY_CONTROL_WINDOW: u32 = 16 * 1024;
/// Of a joining side: the longest message, a full room's welcome, in one round trip.
pub(crate) const JOINING_CONTROL_WINDOW: u32 = 128 * 1024;
/// How long after a suspected MTU black hole the search starts again. Fragments carry full frames meanwhile.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(5);

/// The congestion controller of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438): fair to others, sensitive to random loss.
    Cubic,
    /// BBR: rate-based, keeps its rate under random loss.
    Bbr,
    /// Our own, by delay: short queues, and no mistaking of loss for a full line ([`crate::calm`]).
    #[default]
    Calm,
}

/// The kind of UDP socket under QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UdpKind {
    /// With ECN marks and segmentation offload where the system has them; plain where it refuses the options quinn needs.
    #[default]
    Auto,
    /// Plain everywhere: a system call a packet, no ECN.
    Plain,
}

/// How connections behave. The defaults suit a party over home lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSettings {
    /// A connection on which nothing arrives for this long is lost. Both sides' smaller value counts (RFC 9000 section 10.1).
    pub idle_timeout: Duration,
    /// How often a quiet peer sends a PING. `None` for the relay, which only answers.
    pub keep_alive: Option<Duration>,
    /// The largest UDP payload the MTU search tries, in bytes: 1200 to 65527, of which none above 9216 arrives.
    pub max_udp_payload: u16,
    /// The congestion controller.
    pub congestion: Congestion,
    /// The kind of UDP socket.
    pub udp: UdpKind,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_millis(2500),
            keep_alive: None,
            max_udp_payload: MAX_UDP_PAYLOAD,
            congestion: Congestion::default(),
            udp: UdpKind::default(),
        }
    }
}

impl TransportSettings {
    /// quinn's form of these settings; `control_window` bytes of the control stream may come before they are read.
    ///
    /// # Errors
    /// [`LinkError::InvalidSetting`] when a value is out of range.
    pub(crate) fn build(&self, control_window: u32) -> Result<Arc<TransportConfig>, LinkError> {
        if self.max_udp_payload < MIN_UDP_PAYLOAD {
            return Err(LinkError::InvalidSetting(format!(
                "max_udp_payload is {}, below QUIC's minimum of {MIN_UDP_PAYLOAD}",
                self.max_udp_payload
            )));
        }
        let idle = self.idle_timeout.try_into().map_err(|_| {
            LinkError::InvalidSetting(format!("idle_timeout {:?} is too long", self.idle_timeout))
        })?;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_udp_payload).black_hole_cooldown(BLACK_HOLE_COOLDOWN);

        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .initial_rtt(INITIAL_RTT)
            .keep_alive_interval(self.keep_alive)
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(Some(QUIC_RECEIVE_BUFFER))
            .datagram_send_buffer_size(QUIC_DATAGRAM_BUFFER)
            .mtu_discovery_config(Some(mtu));
        transport
            .stream_receive_window(VarInt::from_u32(control_window))
            .receive_window(VarInt::from_u32(control_window))
            .send_window(256 * 1024);
        match self.congestion {
            Congestion::Cubic => {
                let mut cubic = CubicConfig::default();
                cubic.initial_window(INITIAL_WINDOW);
                transport.congestion_controller_factory(Arc::new(cubic));
            }
            Congestion::Calm => {
                transport.congestion_controller_factory(Arc::new(CalmConfig));
            }
            Congestion::Bbr => {
                transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
            }
        }
        Ok(Arc::new(transport))
    }
}

/// The round trip assumed before one was measured (RFC 9002 section 6.2.2 says 333 ms, "or another suitable value"). A lost first packet is
/// sent again after three of these: players on home lines are nearer than 100 ms, and a restarted relay is found sooner.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Ten full packets (RFC 9002 section 7.2), counted at the size a discovered path carries.
const INITIAL_WINDOW: u64 = 10 * MAX_UDP_PAYLOAD as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_build() {
        assert!(TransportSettings::default().build(RELAY_CONTROL_WINDOW).is_ok());
    }

    #[test]
    fn a_payload_below_quics_minimum_is_refused() {
        let settings = TransportSettings { max_udp_payload: 1199, ..Default::default() };
        assert_eq!(settings.build(RELAY_CONTROL_WINDOW).unwrap_err().kind(), "invalid-setting");
    }
}
