//! Linux: virtual adapters of `/dev/net/tun`, and existing interfaces through AF_PACKET.

use pyo3::prelude::*;
use softlan_port::{AnyPort, PacketOptions, PacketSocket, TapDevice};

use super::Held;
use super::memory::PyMemoryDevice;
use crate::convert::port_error;
use crate::frames::PyMac;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTapDevice>()?;
    module.add_class::<PyPacketSocket>()
}

#[pyclass(name = "TapDevice", frozen, module = "softlan._core")]
pub struct PyTapDevice {
    device: Held<TapDevice>,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    index: u32,
}

#[pymethods]
impl PyTapDevice {
    #[staticmethod]
    #[pyo3(signature = (name, mac, mtu))]
    fn create(name: Option<&str>, mac: PyRef<'_, PyMac>, mtu: u16) -> PyResult<Self> {
        let device = TapDevice::create(name, mac.0, mtu).map_err(port_error)?;
        let (name, index) = (device.name().to_owned(), device.index());
        Ok(Self { device: Held::new(device), name, index })
    }

    fn close(&self) {
        // Already taken or closed: nothing to do.
        let _ = self.device.take();
    }
}

#[pyclass(name = "PacketSocket", frozen, module = "softlan._core")]
pub struct PyPacketSocket(Held<PacketSocket>);

#[pymethods]
impl PyPacketSocket {
    #[staticmethod]
    #[pyo3(signature = (interface, *, promiscuous=true))]
    fn open(interface: &str, promiscuous: bool) -> PyResult<Self> {
        let options = PacketOptions { promiscuous };
        Ok(Self(Held::new(PacketSocket::open(interface, options).map_err(port_error)?)))
    }

    fn close(&self) {
        // Already taken or closed: nothing to do.
        let _ = self.0.take();
    }
}

/// A device in Python's hands.
#[derive(FromPyObject)]
pub enum Device<'py> {
    Tap(PyRef<'py, PyTapDevice>),
    Packet(PyRef<'py, PyPacketSocket>),
    Memory(PyRef<'py, PyMemoryDevice>),
}

impl Device<'_> {
    /// The device's port, on the runtime of the caller.
    pub fn into_port(self) -> PyResult<AnyPort> {
        match self {
            Self::Tap(tap) => tap.device.take()?.into_port().map(AnyPort::Tap),
            Self::Packet(packet) => packet.0.take()?.into_port().map(AnyPort::Packet),
            Self::Memory(memory) => return memory.port(),
        }
        .map_err(port_error)
    }
}
