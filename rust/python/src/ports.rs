//! The bridge between a device of this machine and the relay.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use softlan_link::bridge::GatewayOptions;
use softlan_link::{Bridge, BridgeOptions};

use crate::awaits::future_into_py;
use crate::convert::{counters, seconds};
use crate::devices::Device;
use crate::endpoint::{PyConnection, PyEndpoint};
use crate::frames::PyMac;
use crate::relay::{PyFrameLog, peer_id};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBridge>()
}

#[pyclass(name = "Bridge", frozen, module = "softlan._core")]
pub struct PyBridge(Arc<Bridge>);

#[pymethods]
impl PyBridge {
    #[staticmethod]
    #[pyo3(signature = (endpoint, device, frame_log, *, gateway=false, cam_refresh=None, loopback=None))]
    fn start(
        endpoint: &PyEndpoint,
        device: Device<'_>,
        frame_log: &PyFrameLog,
        gateway: bool,
        cam_refresh: Option<f64>,
        loopback: Option<PyRef<'_, PyMac>>,
    ) -> PyResult<Self> {
        let cam_refresh = cam_refresh.map(seconds).transpose()?;
        let gateway = gateway.then_some(GatewayOptions { cam_refresh });
        let options = BridgeOptions { gateway, loopback: loopback.map(|mac| mac.0) };
        let plane = endpoint.0.plane();
        let _context = plane.handle().enter();
        let port = device.into_port()?;
        Ok(Self(Arc::new(Bridge::start(plane, port, options, frame_log.0.clone()))))
    }

    #[pyo3(signature = (connection, peer_id, *, storm_limit=None))]
    fn attach(&self, connection: &PyConnection, peer_id: u16, storm_limit: Option<u32>) -> PyResult<()> {
        self.0.attach(&connection.0, self::peer_id(peer_id)?, storm_limit);
        Ok(())
    }

    fn detach(&self) {
        self.0.detach();
    }

    fn add_remote(&self, mac: PyRef<'_, PyMac>) -> bool {
        self.0.add_remote(mac.0)
    }

    fn remove_remote(&self, mac: PyRef<'_, PyMac>) {
        self.0.remove_remote(mac.0);
    }

    fn counters(&self) -> HashMap<&'static str, u64> {
        counters(self.0.counters())
    }

    fn port_counters(&self) -> HashMap<&'static str, u64> {
        self.0.port_counters().entries().collect()
    }

    fn up_changed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let bridge = self.0.clone();
        future_into_py(py, async move { Ok(bridge.up_changed().await) })
    }

    fn failed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let bridge = self.0.clone();
        future_into_py(py, async move { Ok(bridge.failed().await) })
    }

    fn close(&self) {
        self.0.close();
    }
}
