//! Rooms, plugged peers and the frame log.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use softlan_link::frame_log::{Capture, CaptureFilter, FrameAction};
use softlan_link::{FrameLog, FrameLogMode, FrameRecord, PeerOptions, PluggedPeer, Room};
use softlan_switch::{Filters, Limits, Rate, Role, Settings, SwitchEvent};
use softlan_wire::PeerId;

use crate::awaits::future_into_py;
use crate::convert::{core_error, counters, seconds, value_error};
use crate::endpoint::PyConnection;
use crate::frames::PyMac;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyFrameLog>()?;
    module.add_class::<PyFrameRecord>()?;
    module.add_class::<PyFrameCapture>()?;
    module.add_class::<PyRoom>()?;
    module.add_class::<PyRoomEvent>()?;
    module.add_class::<PyPluggedPeer>()?;
    module.add("FILTER_NAMES", PyTuple::new(module.py(), Filters::NAMES)?)
}

pub fn peer_id(value: u16) -> PyResult<PeerId> {
    PeerId::new(value).ok_or_else(|| value_error("peer_id: 0 is not a peer id"))
}

#[pyclass(name = "FrameLog", frozen, module = "softlan._core")]
pub struct PyFrameLog(pub Arc<FrameLog>);

#[pymethods]
impl PyFrameLog {
    #[new]
    #[pyo3(signature = (mode="off", *, sample=100))]
    fn new(mode: &str, sample: u32) -> PyResult<Self> {
        let mode = match mode {
            "off" => FrameLogMode::Off,
            "drops" => FrameLogMode::Drops,
            "sampled" => FrameLogMode::Sampled(sample),
            "full" => FrameLogMode::Full,
            other => {
                return Err(value_error(format!(
                    "frame log mode {other:?} is none of off, drops, sampled, full"
                )));
            }
        };
        Ok(Self(Arc::new(FrameLog::new(mode))))
    }

    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let log = self.0.clone();
        future_into_py(py, async move {
            let (records, lost) = log.next_batch().await;
            Ok((records.into_iter().map(PyFrameRecord).collect::<Vec<_>>(), lost))
        })
    }

    #[pyo3(signature = (*, room=None, drops_only=false, snaplen=9216))]
    fn capture(&self, room: Option<String>, drops_only: bool, snaplen: usize) -> PyResult<PyFrameCapture> {
        let capture = self.0.capture(CaptureFilter { room, drops_only, snaplen });
        capture.map(|c| PyFrameCapture(Arc::new(c))).map_err(|error| core_error("too-many-captures", error))
    }
}

#[pyclass(name = "FrameCapture", frozen, module = "softlan._core")]
pub struct PyFrameCapture(Arc<Capture>);

#[pymethods]
impl PyFrameCapture {
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let capture = self.0.clone();
        future_into_py(py, async move { Ok(capture.next_batch().await) })
    }

    fn close(&self) {
        self.0.close();
    }
}

#[pyclass(name = "FrameRecord", frozen, module = "softlan._core")]
pub struct PyFrameRecord(FrameRecord);

#[pymethods]
impl PyFrameRecord {
    #[getter]
    fn time(&self) -> f64 {
        self.0.time
    }
    #[getter]
    fn room(&self) -> &str {
        &self.0.room
    }
    #[getter]
    fn peer(&self) -> Option<u16> {
        self.0.peer.map(PeerId::value)
    }
    #[getter]
    fn source(&self) -> Option<String> {
        self.0.addresses.map(|(source, _, _)| source.to_string())
    }
    #[getter]
    fn destination(&self) -> Option<String> {
        self.0.addresses.map(|(_, destination, _)| destination.to_string())
    }
    #[getter]
    fn ethertype(&self) -> Option<u16> {
        self.0.addresses.map(|(_, _, ethertype)| ethertype.0)
    }
    #[getter]
    fn length(&self) -> usize {
        self.0.length
    }
    #[getter]
    fn action(&self) -> &'static str {
        match self.0.action {
            FrameAction::Passed(how) => how,
            FrameAction::Dropped(_) => "drop",
        }
    }
    #[getter]
    fn drop_reason(&self) -> Option<&'static str> {
        match self.0.action {
            FrameAction::Passed(_) => None,
            FrameAction::Dropped(reason) => Some(reason.name()),
        }
    }
    #[getter]
    fn targets(&self) -> usize {
        self.0.targets
    }
}

#[pyclass(name = "Room", frozen, module = "softlan._core")]
pub struct PyRoom(Arc<Room>);

#[pymethods]
impl PyRoom {
    #[new]
    #[pyo3(signature = (name, frame_log, *, filters_off=vec![], mac_age=300.0, mac_capacity=4096, limit_storm=None))]
    fn new(
        name: &str,
        frame_log: &PyFrameLog,
        filters_off: Vec<String>,
        mac_age: f64,
        mac_capacity: usize,
        limit_storm: Option<u32>,
    ) -> PyResult<Self> {
        let mut filters = Filters::default();
        for filter in &filters_off {
            if !filters.switch_off(filter) {
                return Err(value_error(format!(
                    "there is no filter named {filter:?}; there are {}",
                    Filters::NAMES.join(", ")
                )));
            }
        }
        let settings =
            Settings { filters, mac_age: seconds(mac_age)?, mac_cap: mac_capacity, storm: limit_storm };
        Ok(Self(Room::new(name, settings, frame_log.0.clone())))
    }

    fn is_on_lan(&self, py: Python<'_>, mac: PyRef<'_, PyMac>) -> bool {
        let mac = mac.0;
        // The data plane may be at work on the room's frames just now.
        py.detach(|| self.0.is_on_lan(mac))
    }

    #[pyo3(signature = (connection, peer_id, *, mac, takes_fragments=true, limit_total=None, limit_broadcast=None,
        limit_unknown=None, limit_storm=None, malformed_limit=64, malformed_code, malformed_reason))]
    #[allow(clippy::too_many_arguments)]
    fn plug(
        &self,
        connection: &PyConnection,
        peer_id: u16,
        mac: Option<PyRef<'_, PyMac>>,
        takes_fragments: bool,
        limit_total: Option<u64>,
        limit_broadcast: Option<u64>,
        limit_unknown: Option<u64>,
        limit_storm: Option<u32>,
        malformed_limit: u32,
        malformed_code: u32,
        malformed_reason: String,
    ) -> PyResult<PyPluggedPeer> {
        let options = PeerOptions {
            peer: self::peer_id(peer_id)?,
            role: mac.map_or(Role::Gateway, |mac| Role::Client(mac.0)),
            limits: Limits {
                total: limit_total.map(Rate::with_default_burst),
                broadcast: limit_broadcast.map(Rate::with_default_burst),
                unknown: limit_unknown.map(Rate::with_default_burst),
                storm: limit_storm,
            },
            takes_fragments,
            malformed_limit,
            malformed_close: (malformed_code, malformed_reason),
        };
        let plugged = self.0.plug(&connection.0, options);
        plugged.map(PyPluggedPeer).map_err(|error| core_error("plug", error))
    }

    fn next_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let room = self.0.clone();
        future_into_py(py, async move {
            Ok(room.next_events().await.into_iter().map(PyRoomEvent::from).collect::<Vec<_>>())
        })
    }
}

#[pyclass(name = "RoomEvent", frozen, get_all, module = "softlan._core")]
pub struct PyRoomEvent {
    kind: &'static str,
    peers: Vec<u16>,
    mac: Option<String>,
    address: Option<String>,
    dropped: u64,
}

impl From<SwitchEvent> for PyRoomEvent {
    fn from(event: SwitchEvent) -> Self {
        let both = |peers: (PeerId, PeerId)| vec![peers.0.value(), peers.1.value()];
        let one = |peer: Option<PeerId>| peer.map(PeerId::value).into_iter().collect();
        let mut address = None;
        let (kind, peers, mac, dropped) = match event {
            SwitchEvent::LoopFound { peers, source, is_mutual } => {
                let kind = if is_mutual { "loop-found" } else { "echo-found" };
                (kind, both(peers), Some(source.to_string()), 0)
            }
            SwitchEvent::LoopGone { peers } => ("loop-gone", both(peers), None, 0),
            SwitchEvent::StormBegan { peer } => ("storm-began", one(peer), None, 0),
            SwitchEvent::StormEnded { peer, dropped } => ("storm-ended", one(peer), None, dropped),
            SwitchEvent::TableFull { peer } => ("table-full", vec![peer.value()], None, 0),
            SwitchEvent::TableEased { peer } => ("table-eased", vec![peer.value()], None, 0),
            SwitchEvent::AddressConflict { peers, address: contested } => {
                address = Some(contested.to_string());
                ("address-conflict", both(peers), None, 0)
            }
            SwitchEvent::AddressSettled { peers } => ("address-settled", both(peers), None, 0),
            SwitchEvent::MacConflict { peers, mac } => {
                ("mac-conflict", both(peers), Some(mac.to_string()), 0)
            }
            SwitchEvent::MacSettled { peers } => ("mac-settled", both(peers), None, 0),
        };
        Self { kind, peers, mac, address, dropped }
    }
}

#[pymethods]
impl PyRoomEvent {
    fn __repr__(&self) -> String {
        format!("RoomEvent(kind={:?}, peers={:?})", self.kind, self.peers)
    }
}

#[pyclass(name = "PluggedPeer", frozen, module = "softlan._core")]
pub struct PyPluggedPeer(PluggedPeer);

#[pymethods]
impl PyPluggedPeer {
    fn counters(&self) -> HashMap<&'static str, u64> {
        counters(self.0.counters())
    }

    fn unplug(&self, py: Python<'_>) {
        // The data plane may be at work on the peer's frames just now.
        py.detach(|| self.0.unplug());
    }
}
