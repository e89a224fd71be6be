//! What Python awaits: results of the control plane, handed to asyncio by threads of ours, and by none once the interpreter ends.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::get_runtime;

/// Threads that hand results over. Only one can have the GIL: more than a few only wait, and a burst of peers would start one for each
/// of them (up to 512).
const HANDS: usize = 4;
/// How long a program that ends waits for results under way: far longer than any takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The interpreter ends, and nothing is handed over any more.
static RESTING: AtomicBool = AtomicBool::new(false);

/// Sets up the runtime of the control plane. Frames have one of their own.
///
/// Handlers of `atexit` run last in, first out: whatever a program registers after it has imported this module still may await.
pub fn init(py: Python<'_>) -> PyResult<()> {
    let mut control = tokio::runtime::Builder::new_multi_thread();
    control.worker_threads(1).max_blocking_threads(HANDS).thread_name("softlan-control").enable_all();
    pyo3_async_runtimes::tokio::init(control);
    let rest = wrap_pyfunction!(rest, py)?;
    py.import("atexit")?.call_method1("register", (rest, process::id())).map(drop)
}

/// Turns a future into an awaitable of the running event loop.
///
/// # Errors
/// RuntimeError once the interpreter ends: who awaited it then would wait for ever.
pub fn future_into_py<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    if RESTING.load(Ordering::Relaxed) {
        return Err(PyRuntimeError::new_err("softlan cannot be awaited any more: the interpreter ends"));
    }
    pyo3_async_runtimes::tokio::future_into_py(py, future)
}

/// Lets results that are on their way to Python arrive, and hands over none after them.
///
/// A thread that takes the GIL while the interpreter finalizes is ended on the spot (`PyGILState_Ensure`, "Caution" in the C API's
/// documentation), which Rust's frames do not survive: the whole process would be aborted, after all its work was done.
///
/// `owner` is the process whose threads these are: a child that was forked has the handler, and none of them.
#[pyfunction]
fn rest(py: Python<'_>, owner: u32) {
    if process::id() != owner {
        return;
    }
    RESTING.store(true, Ordering::Relaxed);
    let (here, all_here) = mpsc::channel();
    for _ in 0..HANDS {
        let here = here.clone();
        get_runtime().spawn_blocking(move || {
            // Nobody listens where patience has run out.
            let _ = here.send(());
            loop {
                std::thread::park();
            }
        });
    }
    py.detach(move || {
        let end = Instant::now() + PATIENCE;
        for _ in 0..HANDS {
            if all_here.recv_timeout(end.saturating_duration_since(Instant::now())).is_err() {
                break;
            }
        }
    });
}
