//! What a room's switch has to tell the control plane: waited for here, found there.

use std::time::Duration;

use softlan_switch::SwitchEvent;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::relay::Room;

/// Events are handed over this long after the first at the latest, and the end of what is going on is looked for this often.
const GATHER: Duration = Duration::from_millis(500);

/// Rings when a room's switch has something to tell.
#[derive(Debug, Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    /// Wakes whoever waits; ringing twice is as good as once.
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    async fn rung(&self) {
        self.0.notified().await;
    }
}

impl Room {
    /// Waits until the switch has something to tell, and gives all of it. One caller at a time.
    pub async fn next_events(&self) -> Vec<SwitchEvent> {
        loop {
            let (events, is_restless) = self.take_events();
            if !events.is_empty() {
                return events;
            }
            if is_restless {
                // Nothing that is over announces itself: no frame comes any more.
                let _ = timeout(GATHER, self.bell.rung()).await;
            } else {
                self.bell.rung().await;
            }
        }
    }
}
