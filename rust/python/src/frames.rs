//! Frames, headers and the budget: the wire crate for Python.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use softlan_switch::{Counters, DropReason};
use softlan_wire::{
    Datagram, EthernetFrame, FRAGMENT_HEADER_LEN, Fragment, HEADER_LEN, MAX_FRAME_LEN, MAX_TAP_MTU,
    MIN_DATAGRAM_BUDGET, MIN_TAP_MTU, Mac, Reassembler, ReassemblyLimits, VERSION, decode, fragments,
    write_header,
};

use crate::convert::{core_error, seconds, value_error};
use crate::relay::peer_id;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyMac>()?;
    module.add_class::<PyEthernetFrame>()?;
    module.add_class::<PyDatagram>()?;
    module.add_class::<PyReassembler>()?;
    module.add("WIRE_VERSION", VERSION)?;
    module.add("HEADER_LEN", HEADER_LEN)?;
    module.add("FRAGMENT_HEADER_LEN", FRAGMENT_HEADER_LEN)?;
    module.add("MAX_FRAME_LEN", MAX_FRAME_LEN)?;
    module.add("MIN_TAP_MTU", MIN_TAP_MTU)?;
    module.add("MAX_TAP_MTU", MAX_TAP_MTU)?;
    module.add("MIN_DATAGRAM_BUDGET", MIN_DATAGRAM_BUDGET)?;
    module.add("DROP_REASONS", PyTuple::new(module.py(), DropReason::ALL.map(DropReason::name))?)?;
    let names: Vec<&str> = Counters::default().snapshot().entries().map(|(name, _)| name).collect();
    module.add("COUNTER_NAMES", PyTuple::new(module.py(), names)?)?;
    module.add_function(wrap_pyfunction!(tap_mtu_for_datagram, module)?)?;
    module.add_function(wrap_pyfunction!(datagram_for_tap_mtu, module)?)?;
    module.add_function(wrap_pyfunction!(room_tap_mtu, module)?)?;
    module.add_function(wrap_pyfunction!(encode_frame, module)?)?;
    module.add_function(wrap_pyfunction!(encode_fragments, module)?)?;
    module.add_function(wrap_pyfunction!(decode_datagram, module)?)
}

#[pyclass(name = "Mac", frozen, eq, ord, module = "softlan._core")]
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PyMac(pub Mac);

#[pymethods]
impl PyMac {
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        text.parse().map(Self).map_err(value_error)
    }

    #[staticmethod]
    fn from_bytes(data: [u8; 6]) -> Self {
        Self(Mac::from_bytes(data))
    }

    #[staticmethod]
    fn random_local(py: Python<'_>) -> PyResult<Self> {
        // Python's `secrets` is the operating system's generator; no crate of our own is needed for six bytes.
        let entropy: [u8; 6] = py.import("secrets")?.call_method1("token_bytes", (6,))?.extract()?;
        Ok(Self(Mac::random_local(entropy)))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Mac('{}')", self.0)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.bytes())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    #[getter]
    fn is_group(&self) -> bool {
        self.0.is_group()
    }

    #[getter]
    fn is_locally_administered(&self) -> bool {
        self.0.is_locally_administered()
    }

    fn check_client_identity(&self) -> PyResult<()> {
        self.0.check_client_identity().map_err(value_error)
    }
}

#[pyclass(name = "EthernetFrame", frozen, get_all, module = "softlan._core")]
pub struct PyEthernetFrame {
    destination: Py<PyMac>,
    source: Py<PyMac>,
    tags: Vec<(u16, u16)>,
    ethertype: u16,
    payload: Vec<u8>,
}

#[pymethods]
impl PyEthernetFrame {
    #[staticmethod]
    fn parse(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let frame = EthernetFrame::parse(data).map_err(value_error)?;
        Ok(Self {
            destination: Py::new(py, PyMac(frame.destination()))?,
            source: Py::new(py, PyMac(frame.source()))?,
            tags: frame.tags().map(|tag| (tag.tpid.0, tag.tci)).collect(),
            ethertype: frame.ethertype().0,
            payload: frame.payload().to_vec(),
        })
    }
}

#[pyclass(name = "Datagram", frozen, get_all, module = "softlan._core")]
pub struct PyDatagram {
    peer_id: u16,
    frame: Vec<u8>,
    frame_id: Option<u32>,
    index: u8,
    last: u8,
}

#[pyfunction]
fn decode_datagram(data: &[u8]) -> PyResult<PyDatagram> {
    match decode(data).map_err(|error| core_error(error.reason(), error))? {
        Datagram::Frame { peer, frame } => {
            Ok(PyDatagram { peer_id: peer.value(), frame: frame.to_vec(), frame_id: None, index: 0, last: 0 })
        }
        Datagram::Fragment(Fragment { peer, index, last, frame_id, part }) => Ok(PyDatagram {
            peer_id: peer.value(),
            frame: part.to_vec(),
            frame_id: Some(frame_id),
            index,
            last,
        }),
    }
}

#[pyfunction]
fn encode_frame(peer_id: u16, frame: &[u8]) -> PyResult<Vec<u8>> {
    let mut header = [0; HEADER_LEN];
    write_header(&mut header, self::peer_id(peer_id)?);
    Ok([&header[..], frame].concat())
}

#[pyfunction]
fn encode_fragments(
    peer_id: u16,
    frame_id: u32,
    frame: &[u8],
    datagram_size: usize,
) -> PyResult<Vec<Vec<u8>>> {
    let parts = fragments(self::peer_id(peer_id)?, frame_id, frame, datagram_size).map_err(value_error)?;
    Ok(parts.map(|part| [&part.header[..], part.part].concat()).collect())
}

#[pyclass(name = "Reassembler", frozen, module = "softlan._core")]
pub struct PyReassembler(Mutex<Reassembler>);

#[pymethods]
impl PyReassembler {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(Reassembler::new(ReassemblyLimits::default())))
    }

    fn push(&self, now: f64, datagram: &[u8]) -> PyResult<Option<Vec<u8>>> {
        let now = seconds(now)?;
        match decode(datagram).map_err(|error| core_error(error.reason(), error))? {
            Datagram::Frame { frame, .. } => Ok(Some(frame.to_vec())),
            Datagram::Fragment(fragment) => {
                let mut reassembler = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let frame = reassembler.push(now, fragment).map_err(|e| core_error("reassembly", e))?;
                Ok(frame.map(|frame| frame.to_vec()))
            }
        }
    }
}

#[pyfunction]
fn tap_mtu_for_datagram(datagram_size: usize) -> u16 {
    softlan_wire::tap_mtu_for_datagram(datagram_size)
}

#[pyfunction]
fn datagram_for_tap_mtu(mtu: u16) -> usize {
    softlan_wire::datagram_for_tap_mtu(mtu)
}

#[pyfunction]
fn room_tap_mtu(first_budget: usize, configured: u16) -> u16 {
    softlan_wire::room_tap_mtu(first_budget, configured)
}
