//! Adapters, packet sockets and the bridge between one of them and the relay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::future_into_py;
use softlan_link::bridge::GatewayOptions;
use softlan_link::{Bridge, BridgeOptions};
use softlan_port::{AnyPort, PacketOptions, PacketSocket, TapDevice};

use crate::convert::{core_error, counters, port_error, seconds};
use crate::endpoint::{PyConnection, PyEndpoint};
use crate::frames::PyMac;
use crate::relay::{PyFrameLog, peer_id};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTapDevice>()?;
    module.add_class::<PyPacketSocket>()?;
    module.add_class::<PyBridge>()
}

/// A device until a bridge takes it.
struct Held<T>(Mutex<Option<T>>);

impl<T> Held<T> {
    fn new(device: T) -> Self {
        Self(Mutex::new(Some(device)))
    }

    fn take(&self) -> PyResult<T> {
        let taken = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        taken.ok_or_else(|| core_error("taken", "a bridge has this device already, or it is closed"))
    }
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

#[derive(FromPyObject)]
enum Device<'py> {
    Tap(PyRef<'py, PyTapDevice>),
    Packet(PyRef<'py, PyPacketSocket>),
}

#[pyclass(name = "Bridge", frozen, module = "softlan._core")]
pub struct PyBridge(Arc<Bridge>);

#[pymethods]
impl PyBridge {
    #[staticmethod]
    #[pyo3(signature = (endpoint, device, frame_log, *, gateway=false, cam_refresh=None))]
    fn start(
        endpoint: &PyEndpoint,
        device: Device<'_>,
        frame_log: &PyFrameLog,
        gateway: bool,
        cam_refresh: Option<f64>,
    ) -> PyResult<Self> {
        let cam_refresh = cam_refresh.map(seconds).transpose()?;
        let options = BridgeOptions { gateway: gateway.then_some(GatewayOptions { cam_refresh }) };
        let plane = endpoint.0.plane();
        let _context = plane.handle().enter();
        let port = match device {
            Device::Tap(tap) => AnyPort::Tap(tap.device.take()?.into_port().map_err(port_error)?),
            Device::Packet(packet) => AnyPort::Packet(packet.0.take()?.into_port().map_err(port_error)?),
        };
        Ok(Self(Arc::new(Bridge::start(plane, port, options, frame_log.0.clone()))))
    }

    fn attach(&self, connection: &PyConnection, peer_id: u16) -> PyResult<()> {
        self.0.attach(&connection.0, self::peer_id(peer_id)?);
        Ok(())
    }

    fn detach(&self) {
        self.0.detach();
    }

    fn add_remote(&self, mac: PyRef<'_, PyMac>) {
        self.0.add_remote(mac.0);
    }

    fn remove_remote(&self, mac: PyRef<'_, PyMac>) {
        self.0.remove_remote(mac.0);
    }

    fn counters(&self) -> HashMap<&'static str, u64> {
        counters(self.0.counters())
    }

    fn port_counters(&self) -> HashMap<&'static str, u64> {
        self.0.port_counters().entries().into_iter().collect()
    }

    fn failed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let bridge = self.0.clone();
        future_into_py(py, async move { Ok(bridge.failed().await) })
    }

    fn close(&self) {
        self.0.close();
    }
}
