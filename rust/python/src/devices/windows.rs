//! Windows: TAP-Windows6 adapters.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use softlan_port::{AnyPort, WindowsTap, WindowsTapOptions};

use super::memory::PyMemoryDevice;
use crate::convert::port_error;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyWindowsTap>()
}

#[pyclass(name = "WindowsTap", frozen, module = "softlan._core")]
pub struct PyWindowsTap(WindowsTap);

#[pymethods]
impl PyWindowsTap {
    #[staticmethod]
    #[pyo3(signature = (path, *, on_reopen=None))]
    fn open(py: Python<'_>, path: &str, on_reopen: Option<(u32, Vec<u8>)>) -> PyResult<Self> {
        let options = WindowsTapOptions { on_reopen, ..WindowsTapOptions::default() };
        py.detach(|| WindowsTap::open(path, options)).map(Self).map_err(port_error)
    }

    fn ioctl<'py>(
        &self,
        py: Python<'py>,
        code: u32,
        data: Vec<u8>,
        answer_size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = py.detach(|| self.0.ioctl(code, &data, answer_size)).map_err(port_error)?;
        Ok(PyBytes::new(py, &answer))
    }

    fn counters(&self) -> HashMap<&'static str, u64> {
        self.0.counters().entries().collect()
    }

    #[getter]
    fn reopenings(&self) -> u64 {
        self.0.reopenings()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// A device in Python's hands.
#[derive(FromPyObject)]
pub enum Device<'py> {
    Tap(PyRef<'py, PyWindowsTap>),
    Memory(PyRef<'py, PyMemoryDevice>),
}

impl Device<'_> {
    /// The device's port. The adapter stays Python's as well: it can be asked while it is bridged.
    pub fn into_port(self) -> PyResult<AnyPort> {
        match self {
            Self::Tap(tap) => tap.0.port().map(AnyPort::WindowsTap).map_err(port_error),
            Self::Memory(memory) => memory.port(),
        }
    }
}
