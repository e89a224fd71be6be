//! Keeping a LAN's switches pointed at the gateway: which remote MAC has been quiet on the LAN, and the frame that speaks for it.
//!
//! A switch forgets a MAC after about 300 s of silence (IEEE 802.1Q section 8.8.3) and then floods frames for it to every port. A small
//! frame from that MAC, now and then, keeps its entry on the gateway's port.

use std::collections::HashMap;
use std::time::Duration;

use softlan_wire::Mac;

/// Bytes of a refresh frame: the least an Ethernet frame has without its FCS (IEEE 802.3 section 4A.4.2).
pub const REFRESH_FRAME_LEN: usize = 60;

/// Remote MACs and when the LAN last saw each.
#[derive(Debug)]
pub struct CamRefresher {
    /// `None`: no refresh frames, only membership.
    interval: Option<Duration>,
    /// The gateway machine's own on that LAN, which is nobody else's.
    own: Option<Mac>,
    last_seen: HashMap<Mac, Option<Duration>>,
    /// Those removed, and when: their last frames may still be under way.
    removed: HashMap<Mac, Duration>,
}

/// The most remote MACs held: more than any room has clients.
const CAPACITY: usize = 4096;
/// Frames of a peer arrive for so long after the word that it has left, which overtakes what waits in queues (for 100 ms at most, and 500 ms
/// where fragments are put together), and the way itself on a bad line.
const STRAGGLING: Duration = Duration::from_secs(5);

impl CamRefresher {
    /// Refreshes a MAC when the LAN has not seen it for `interval`; `None` switches refresh frames off.
    pub fn new(interval: Option<Duration>) -> Self {
        Self { interval, own: None, last_seen: HashMap::new(), removed: HashMap::new() }
    }

    /// Says which MAC this machine itself has on the LAN. It is no remote one, whoever says it has it: what is for this machine would
    /// leave the LAN, and refresh frames would speak in its name.
    pub fn set_own(&mut self, own: Option<Mac>) {
        self.own = own;
        if let Some(own) = own {
            self.last_seen.remove(&own);
        }
    }

    /// Adds a remote MAC. It is due at once: the LAN should know it before its first frame.
    pub fn add(&mut self, mac: Mac) {
        self.removed.remove(&mac);
        if self.own != Some(mac) && !mac.is_group() && !mac.is_zero() && self.last_seen.len() < CAPACITY {
            self.last_seen.entry(mac).or_insert(None);
        }
    }

    /// Removes a remote MAC. Frames of it that are under way do not bring it back.
    pub fn remove(&mut self, mac: Mac, now: Duration) {
        self.last_seen.remove(&mac);
        self.removed.retain(|_, at| now.saturating_sub(*at) < STRAGGLING);
        if self.removed.len() < CAPACITY {
            self.removed.insert(mac, now);
        }
    }

    /// Forgets all of them: the gateway is no longer in the room.
    pub fn clear(&mut self) {
        self.last_seen.clear();
        self.removed.clear();
    }

    /// Whether `mac` is a remote one.
    pub fn contains(&self, mac: Mac) -> bool {
        self.last_seen.contains_key(&mac)
    }

    /// Notes that the LAN sees a frame from `mac` now; learns the MAC if it is new, as those behind a client are where the relay lets it speak
    /// for others.
    pub fn seen(&mut self, mac: Mac, now: Duration) {
        match self.last_seen.get_mut(&mac) {
            Some(last) => *last = Some(now),
            None if self.removed.get(&mac).is_some_and(|at| now.saturating_sub(*at) < STRAGGLING) => {}
            None => {
                self.add(mac);
                if let Some(last) = self.last_seen.get_mut(&mac) {
                    *last = Some(now);
                }
            }
        }
    }

    /// One MAC that has been quiet for long enough, if any; it counts as seen from now on. Calling this at intervals spaces the frames.
    pub fn due(&mut self, now: Duration) -> Option<Mac> {
        let interval = self.interval?;
        let (mac, last) = self
            .last_seen
            .iter_mut()
            .find(|(_, last)| last.is_none_or(|last| now.saturating_sub(last) >= interval))?;
        *last = Some(now);
        Some(*mac)
    }
}

/// A broadcast RARP request (RFC 903; EtherType 0x8035) by which `mac` asks for its own protocol address: every switch learns
/// from its source, and no host answers it.
pub fn refresh_frame(mac: Mac) -> [u8; REFRESH_FRAME_LEN] {
    /// Hardware type 1 (Ethernet), protocol 0x0800 (IPv4), address lengths 6 and 4, operation 3 (request reverse).
    const RARP_REQUEST: [u8; 10] = [0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x03];
    let mut frame = [0; REFRESH_FRAME_LEN];
    frame[..6].copy_from_slice(&Mac::BROADCAST.bytes());
    frame[6..12].copy_from_slice(&mac.bytes());
    frame[12..22].copy_from_slice(&RARP_REQUEST);
    // Sender and target hardware address are the MAC asked about; both protocol addresses stay zero: unknown.
    frame[22..28].copy_from_slice(&mac.bytes());
    frame[32..38].copy_from_slice(&mac.bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn mac(last: u8) -> Mac {
        Mac::from_bytes([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn a_new_mac_is_due_at_once_and_then_after_the_interval() {
        let mut cam = CamRefresher::new(Some(60 * S));
        cam.add(mac(1));
        assert_eq!(cam.due(S), Some(mac(1)));
        assert_eq!(cam.due(2 * S), None);
        assert_eq!(cam.due(61 * S), Some(mac(1)));
    }

    #[test]
    fn a_mac_that_speaks_is_not_refreshed() {
        let mut cam = CamRefresher::new(Some(60 * S));
        cam.seen(mac(1), S);
        assert_eq!(cam.due(60 * S), None);
        cam.seen(mac(1), 50 * S);
        assert_eq!(cam.due(100 * S), None);
        assert_eq!(cam.due(110 * S), Some(mac(1)));
    }

    #[test]
    fn one_mac_a_call_so_that_frames_are_spaced() {
        let mut cam = CamRefresher::new(Some(60 * S));
        for last in 1..=3 {
            cam.add(mac(last));
        }
        let mut due: Vec<Mac> = (0..3).filter_map(|_| cam.due(S)).collect();
        due.sort();
        assert_eq!((due, cam.due(S)), (vec![mac(1), mac(2), mac(3)], None));
    }

    #[test]
    fn group_and_removed_macs_are_never_refreshed() {
        let mut cam = CamRefresher::new(Some(S));
        cam.add(Mac::BROADCAST);
        cam.add(mac(1));
        cam.remove(mac(1), S);
        assert_eq!(cam.due(10 * S), None);
    }

    #[test]
    fn the_last_frames_of_one_who_has_left_do_not_bring_it_back() {
        let mut cam = CamRefresher::new(Some(S));
        cam.add(mac(1));
        cam.remove(mac(1), 10 * S);
        cam.seen(mac(1), 10 * S);
        cam.seen(mac(1), 14 * S);
        assert!(!cam.contains(mac(1)) && cam.due(100 * S).is_none());
        // It comes back, or a station behind some client has its address by now.
        cam.add(mac(1));
        assert!(cam.contains(mac(1)));
        cam.remove(mac(1), 20 * S);
        cam.seen(mac(1), 26 * S);
        assert!(cam.contains(mac(1)));
        // Nothing is kept of those who left long ago.
        for last in 0..200 {
            cam.remove(mac(last), u32::from(last) * S);
        }
        assert!(cam.removed.len() <= 5, "{}", cam.removed.len());
    }

    #[test]
    fn this_machines_own_mac_is_never_a_remote_one() {
        let mut cam = CamRefresher::new(Some(S));
        cam.add(mac(1));
        cam.set_own(Some(mac(1)));
        assert!(!cam.contains(mac(1)));
        cam.add(mac(1));
        cam.seen(mac(1), S);
        assert!(!cam.contains(mac(1)));
        assert_eq!(cam.due(10 * S), None);
        // Its interface has another one by now.
        cam.set_own(Some(mac(2)));
        cam.add(mac(1));
        assert!(cam.contains(mac(1)));
    }

    #[test]
    fn switched_off_it_still_knows_the_members() {
        let mut cam = CamRefresher::new(None);
        cam.add(mac(1));
        assert!(cam.contains(mac(1)) && cam.due(1000 * S).is_none());
    }

    #[test]
    fn the_refresh_frame_comes_from_the_remote_mac() {
        let frame = refresh_frame(mac(7));
        assert_eq!(
            (&frame[..6], &frame[6..12], &frame[12..14]),
            (&[0xff; 6][..], &mac(7).bytes()[..], &[0x80, 0x35][..])
        );
    }
}
