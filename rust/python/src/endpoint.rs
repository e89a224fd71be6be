//! Endpoints and connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use softlan_link::{
    Congestion, Connection, Endpoint, LinkError, TransportSettings, Trust, UdpKind, harmless,
};

use crate::awaits::future_into_py;
use crate::convert::{link_error, seconds, socket_address, value_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyEndpoint>()?;
    module.add_class::<PyConnection>()?;
    module.add_class::<PyCloseReason>()?;
    module.add_class::<PyTransport>()
}

#[pyclass(name = "TransportSettings", frozen, module = "softlan._core")]
pub struct PyTransport(TransportSettings);

#[pymethods]
impl PyTransport {
    #[new]
    #[pyo3(signature = (*, idle_timeout=2.5, keep_alive=None, max_udp_payload=1472, congestion="calm", udp="auto"))]
    fn new(
        idle_timeout: f64,
        keep_alive: Option<f64>,
        max_udp_payload: u16,
        congestion: &str,
        udp: &str,
    ) -> PyResult<Self> {
        let congestion = match congestion {
            "cubic" => Congestion::Cubic,
            "bbr" => Congestion::Bbr,
            "calm" => Congestion::Calm,
            other => return Err(value_error(format!("congestion: {other:?} is none of cubic, bbr, calm"))),
        };
        let udp = match udp {
            "auto" => UdpKind::Auto,
            "plain" => UdpKind::Plain,
            other => return Err(value_error(format!("udp: {other:?} is neither auto nor plain"))),
        };
        let idle_timeout = seconds(idle_timeout)?;
        let keep_alive = keep_alive.map(seconds).transpose()?;
        Ok(Self(TransportSettings { idle_timeout, keep_alive, max_udp_payload, congestion, udp }))
    }
}

#[pyclass(name = "Endpoint", frozen, module = "softlan._core")]
pub struct PyEndpoint(pub Arc<Endpoint>);

#[pymethods]
impl PyEndpoint {
    #[staticmethod]
    fn server(
        py: Python<'_>,
        listen: &str,
        certificate_chain: Vec<Vec<u8>>,
        private_key: Vec<u8>,
        transport: &PyTransport,
    ) -> PyResult<Self> {
        let listen = socket_address(listen)?;
        py.detach(|| Endpoint::server(listen, certificate_chain, &private_key, &transport.0))
            .map(|endpoint| Self(Arc::new(endpoint)))
            .map_err(link_error)
    }

    #[staticmethod]
    fn client(py: Python<'_>, local: &str, transport: &PyTransport) -> PyResult<Self> {
        let local = socket_address(local)?;
        py.detach(|| Endpoint::client(local, &transport.0))
            .map(|endpoint| Self(Arc::new(endpoint)))
            .map_err(link_error)
    }

    #[getter]
    fn local_address(&self) -> String {
        self.0.local_address().to_string()
    }

    #[getter]
    fn plain_because(&self) -> Option<&str> {
        self.0.plain_because()
    }

    fn handshakes(&self) -> HashMap<&'static str, u64> {
        self.0.handshakes().collect()
    }

    fn replace_certificate(&self, certificate_chain: Vec<Vec<u8>>, private_key: Vec<u8>) -> PyResult<()> {
        self.0.replace_certificate(certificate_chain, &private_key).map_err(link_error)
    }

    fn accept<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let endpoint = self.0.clone();
        future_into_py(py, async move {
            Ok(endpoint.accept().await.map(|connection| PyConnection(Arc::new(connection))))
        })
    }

    #[pyo3(signature = (address, server_name, roots, *, pins=vec![], timeout))]
    fn connect<'py>(
        &self,
        py: Python<'py>,
        address: &str,
        server_name: String,
        roots: Vec<Vec<u8>>,
        pins: Vec<[u8; 32]>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let endpoint = self.0.clone();
        let (address, limit) = (socket_address(address)?, seconds(timeout)?);
        future_into_py(py, async move {
            let trust = if pins.is_empty() { Trust::Roots(&roots) } else { Trust::Pins(&pins) };
            let connected = endpoint.connect(address, &server_name, trust, limit).await;
            connected.map(|connection| PyConnection(Arc::new(connection))).map_err(link_error)
        })
    }

    #[pyo3(signature = (code, reason, *, timeout=0.5))]
    fn close<'py>(
        &self,
        py: Python<'py>,
        code: u32,
        reason: String,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let endpoint = self.0.clone();
        let limit = seconds(timeout)?;
        future_into_py(py, async move {
            endpoint.close(code, &reason, limit).await;
            Ok(())
        })
    }

    #[pyo3(signature = (*, timeout))]
    fn answers<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let (errand, limit) = (self.0.plane().handle().spawn(async {}), seconds(timeout)?);
        future_into_py(py, async move { Ok(matches!(tokio::time::timeout(limit, errand).await, Ok(Ok(())))) })
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.plane().stop());
    }
}

#[pyclass(name = "CloseReason", frozen, get_all, module = "softlan._core")]
pub struct PyCloseReason {
    kind: &'static str,
    code: Option<u64>,
    reason: String,
}

#[pymethods]
impl PyCloseReason {
    fn __repr__(&self) -> String {
        format!("CloseReason(kind={:?}, code={:?}, reason={:?})", self.kind, self.code, self.reason)
    }
}

#[pyclass(name = "Connection", frozen, module = "softlan._core")]
pub struct PyConnection(pub Arc<Connection>);

impl PyConnection {
    fn wait<'py, F, T>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(Arc<Connection>) -> F,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = Result<T, LinkError>> + Send + 'static,
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let work = work(self.0.clone());
        future_into_py(py, async move { work.await.map_err(link_error) })
    }
}

#[pymethods]
impl PyConnection {
    #[getter]
    fn id(&self) -> usize {
        self.0.id()
    }

    #[getter]
    fn remote_address(&self) -> String {
        self.0.remote_address().to_string()
    }

    #[getter]
    fn proven_address(&self) -> String {
        self.0.proven_address().to_string()
    }

    #[getter]
    fn ended(&self) -> bool {
        self.0.ended()
    }

    #[getter]
    fn rtt(&self) -> f64 {
        self.0.rtt().as_secs_f64()
    }

    #[getter]
    fn max_datagram_size(&self) -> Option<usize> {
        self.0.max_datagram_size()
    }

    fn export_keying_material<'py>(
        &self,
        py: Python<'py>,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let exported = self.0.export_keying_material(label, context, length).map_err(link_error)?;
        Ok(PyBytes::new(py, &exported))
    }

    #[pyo3(signature = (*, timeout))]
    fn settled_datagram_budget<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds(timeout)?;
        self.wait(py, move |c| async move { c.settled_datagram_budget(limit).await })
    }

    fn silence<'py>(&self, py: Python<'py>, limit: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds(limit)?;
        self.wait(py, move |c| async move {
            c.silence(limit).await;
            Ok(())
        })
    }

    #[pyo3(signature = (*, timeout))]
    fn heard<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit = seconds(timeout)?;
        self.wait(py, move |c| async move { Ok(c.heard(limit).await) })
    }

    fn open_control<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |c| async move { c.open_control().await })
    }

    fn accept_control<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |c| async move { c.accept_control().await })
    }

    #[pyo3(signature = (limit, *, least=1))]
    fn read_control<'py>(&self, py: Python<'py>, limit: usize, least: usize) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, move |c| async move { Ok(c.read_control(least, limit).await?.unwrap_or_default()) })
    }

    fn write_control<'py>(&self, py: Python<'py>, data: Vec<u8>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, move |c| async move { c.write_control(&data).await })
    }

    #[pyo3(signature = (*, timeout=0.5))]
    fn finish_control<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let limit: Duration = seconds(timeout)?;
        self.wait(py, move |c| async move {
            c.finish_control(limit).await;
            Ok(())
        })
    }

    fn close(&self, py: Python<'_>, code: u32, reason: &str) {
        // The data plane may be at work on the connection just now.
        py.detach(|| self.0.close(code, reason));
    }

    fn closed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |c| async move {
            let closed = c.closed().await;
            Ok(PyCloseReason { kind: closed.kind, code: closed.code, reason: harmless(&closed.reason) })
        })
    }
}
