//! Linux's devices on systems that are not Linux: there to be imported and named in types; opening one says why it cannot be.

use pyo3::prelude::*;

use crate::convert::core_error;
use crate::frames::PyMac;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTapDevice>()?;
    module.add_class::<PyPacketSocket>()
}

fn unsupported<T>(what: &str) -> PyResult<T> {
    Err(core_error("unsupported", format!("{what}: only Linux has that")))
}

#[pyclass(name = "TapDevice", frozen, module = "softlan._core")]
pub struct PyTapDevice {
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    index: u32,
}

#[pymethods]
impl PyTapDevice {
    #[staticmethod]
    #[pyo3(signature = (name, mac, mtu))]
    #[expect(unused_variables, reason = "Linux's signature")]
    fn create(name: Option<&str>, mac: PyRef<'_, PyMac>, mtu: u16) -> PyResult<Self> {
        unsupported("creating a virtual adapter through /dev/net/tun")
    }

    fn close(&self) {}
}

#[pyclass(name = "PacketSocket", frozen, module = "softlan._core")]
pub struct PyPacketSocket;

#[pymethods]
impl PyPacketSocket {
    #[staticmethod]
    #[pyo3(signature = (interface, *, promiscuous=true))]
    #[expect(unused_variables, reason = "Linux's signature")]
    fn open(interface: &str, promiscuous: bool) -> PyResult<Self> {
        unsupported("using an existing interface through AF_PACKET")
    }

    fn close(&self) {}
}

/// A device in Python's hands: none of this system can be bridged, but frames of the program's own can.
#[cfg(not(windows))]
#[derive(FromPyObject)]
pub enum Device<'py> {
    Memory(PyRef<'py, super::memory::PyMemoryDevice>),
}

#[cfg(not(windows))]
impl Device<'_> {
    /// The device's port.
    pub fn into_port(self) -> PyResult<softlan_port::AnyPort> {
        let Self::Memory(memory) = self;
        memory.port()
    }
}
