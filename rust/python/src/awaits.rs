//! What Python awaits: results of the control plane, handed to asyncio by threads of ours, and by none once the interpreter ends.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3_async_runtimes::tokio::get_runtime;

/// Threads that hand results over. Only one can have the GIL: more than a few only wait, and a burst of peers would start one for each
/// of them (up to 512).
const HANDS: usize = 4;
/// How long a program that ends waits for results under way: far longer than any takes.
const PATIENCE: Duration = Duration::from_secs(2);

static REGISTERED: PyOnceLock<()> = PyOnceLock::new();

/// Sets up the runtime of the control plane. Frames have one of their own.
pub fn init() {
    let mut control = tokio::runtime::Builder::new_multi_thread();
    control.worker_threads(1).max_blocking_threads(HANDS).thread_name("softlan-control").enable_all();
    pyo3_async_runtimes::tokio::init(control);
}

/// Turns a future into an awaitable of the running event loop.
pub fn future_into_py<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    REGISTERED.get_or_try_init(py, || {
        let rest = wrap_pyfunction!(rest, py)?;
        py.import("atexit")?.call_method1("register", (rest,)).map(drop)
    })?;
    pyo3_async_runtimes::tokio::future_into_py(py, future)
}

/// Lets results that are on their way to Python arrive, and hands over none after them.
///
/// A thread that takes the GIL while the interpreter finalizes is ended on the spot (`PyGILState_Ensure`, "Caution" in the C API's
/// documentation), which Rust's frames do not survive: the whole process would be aborted, after all its work was done.
#[pyfunction]
fn rest(py: Python<'_>) {
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
