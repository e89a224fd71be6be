//! Errors and small values on their way to Python.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use softlan_link::{LinkError, harmless};
use softlan_port::PortError;
use softlan_switch::Counters;

create_exception!(_core, CoreError, PyException, "A failure in the core: args are (kind, message).");

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CoreError", module.py().get_type::<CoreError>())
}

pub fn core_error(kind: &'static str, message: impl ToString) -> PyErr {
    CoreError::new_err((kind, message.to_string()))
}

/// A link's failure. Its text may hold words of whoever is at the other end, who need not have been authenticated.
pub fn link_error(error: LinkError) -> PyErr {
    core_error(error.kind(), harmless(&error.to_string()))
}

pub fn port_error(error: PortError) -> PyErr {
    core_error(error.kind(), &error)
}

pub fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `IP:PORT` or `[IP6]:PORT`; names are resolved in Python.
pub fn socket_address(text: &str) -> PyResult<SocketAddr> {
    text.parse().map_err(|_| value_error(format!("{text:?} is not IP:PORT")))
}

/// Seconds, as Python gives durations.
pub fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|e| value_error(format!("{value} seconds: {e}")))
}

pub fn counters(counters: &Counters) -> HashMap<&'static str, u64> {
    counters.snapshot().entries().collect()
}
