//! The PyO3 module `softlan._core`: translation of types and errors between Python and the Rust crates, and nothing else.
//!
//! `python/softlan/_core.pyi` is its description for people and type checkers.
#![allow(missing_docs)] // What Python sees is documented in the stub.

mod convert;
mod devices;
mod endpoint;
mod frames;
mod ports;
mod relay;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Awaits of the control plane only; frames have a runtime of their own. One thread is plenty.
    let mut control = tokio::runtime::Builder::new_multi_thread();
    // Each awaitable that ends takes the GIL on a blocking thread. Only one can have it: more threads than a few only wait, and a
    // burst of peers would start one for each of them (up to 512).
    control.worker_threads(1).max_blocking_threads(4).thread_name("softlan-control").enable_all();
    pyo3_async_runtimes::tokio::init(control);

    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    convert::register(module)?;
    frames::register(module)?;
    endpoint::register(module)?;
    relay::register(module)?;
    devices::register(module)?;
    ports::register(module)
}
