//! Which of a switch's events begin something, and which end it.

use softlan_switch::SwitchEvent;

/// Whether the event says that something has begun.
pub(crate) fn is_beginning(event: SwitchEvent) -> bool {
    matches!(
        event,
        SwitchEvent::LoopFound { .. }
            | SwitchEvent::StormBegan { .. }
            | SwitchEvent::TableFull { .. }
            | SwitchEvent::AddressConflict { .. }
    )
}

/// Whether the event is of all peers together, so that it may outlast each one.
pub(crate) fn is_of_room(event: SwitchEvent) -> bool {
    event == SwitchEvent::StormBegan { peer: None }
}

/// Whether `event` ends what `begun` began, or begins it again.
pub(crate) fn is_end(begun: SwitchEvent, event: SwitchEvent) -> bool {
    use SwitchEvent::{
        AddressConflict, AddressSettled, LoopFound, LoopGone, StormBegan, StormEnded, TableEased, TableFull,
    };
    match (begun, event) {
        (LoopFound { peers, .. }, LoopGone { peers: other } | LoopFound { peers: other, .. }) => {
            peers == other
        }
        (StormBegan { peer }, StormEnded { peer: other, .. } | StormBegan { peer: other }) => peer == other,
        (TableFull { peer }, TableEased { peer: other } | TableFull { peer: other }) => peer == other,
        (
            AddressConflict { peers, .. },
            AddressSettled { peers: other } | AddressConflict { peers: other, .. },
        ) => peers == other,
        _ => false,
    }
}
