//! A device that is no machine's: the frames are the program's own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use softlan_port::{AnyPort, MAX_FRAME_LEN, MIN_FRAME_LEN, MemoryPort, MemoryWire};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Mutex, watch};

use super::Held;
use crate::awaits::future_into_py;
use crate::convert::{core_error, value_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyMemoryDevice>()
}

/// Frames given to Python in one call at most.
const BATCH: usize = 256;

#[pyclass(name = "MemoryDevice", frozen, module = "softlan._core")]
pub struct PyMemoryDevice {
    port: Held<MemoryPort>,
    outgoing: mpsc::Sender<Bytes>,
    incoming: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    closed: watch::Sender<bool>,
}

#[pymethods]
impl PyMemoryDevice {
    #[new]
    #[pyo3(signature = (*, capacity=1024))]
    fn new(capacity: usize) -> PyResult<Self> {
        if !(1..=1 << 20).contains(&capacity) {
            return Err(value_error(format!("capacity: {capacity} is not from 1 to {}", 1 << 20)));
        }
        let (port, MemoryWire { to_port, from_port }) = MemoryPort::new(capacity);
        Ok(Self {
            port: Held::new(port),
            outgoing: to_port,
            incoming: Arc::new(Mutex::new(from_port)),
            closed: watch::Sender::new(false),
        })
    }

    fn offer(&self, frame: &[u8]) -> PyResult<bool> {
        match self.outgoing.try_send(checked(frame)?) {
            _ if *self.closed.borrow() => Err(closed_error()),
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Closed(_)) => Err(closed_error()),
        }
    }

    fn send<'py>(&self, py: Python<'py>, frame: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let (frame, outgoing, mut closed) = (checked(frame)?, self.outgoing.clone(), self.closed.subscribe());
        future_into_py(py, async move {
            let mut sending = pin!(outgoing.send(frame));
            let mut closing = pin!(closed.wait_for(|closed| *closed));
            poll_fn(|context| {
                if closing.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(closed_error()));
                }
                sending.as_mut().poll(context).map_err(|_closed| closed_error())
            })
            .await
        })
    }

    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (incoming, mut closed) = (self.incoming.clone(), self.closed.subscribe());
        future_into_py(py, async move {
            let mut incoming = incoming.lock().await;
            let mut frames = Vec::new();
            let mut closing = pin!(closed.wait_for(|closed| *closed));
            poll_fn(|context| {
                if closing.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                incoming.poll_recv_many(context, &mut frames, BATCH).map(|_count| ())
            })
            .await;
            Ok(frames.into_iter().map(Frame).collect::<Vec<_>>())
        })
    }

    fn close(&self) {
        self.closed.send_replace(true);
        // Already taken or closed: nothing to do.
        let _ = self.port.take();
    }
}

impl PyMemoryDevice {
    /// The port a bridge takes.
    pub fn port(&self) -> PyResult<AnyPort> {
        self.port.take().map(AnyPort::Memory)
    }
}

/// A frame on its way to Python, as `bytes`.
struct Frame(Bytes);

impl<'py> IntoPyObject<'py> for Frame {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyBytes::new(py, &self.0))
    }
}

fn checked(frame: &[u8]) -> PyResult<Bytes> {
    if (MIN_FRAME_LEN..=MAX_FRAME_LEN).contains(&frame.len()) {
        return Ok(Bytes::copy_from_slice(frame));
    }
    Err(value_error(format!(
        "a frame of {} bytes: {MIN_FRAME_LEN} to {MAX_FRAME_LEN} can be sent",
        frame.len()
    )))
}

fn closed_error() -> PyErr {
    core_error("closed", "the device is closed")
}
