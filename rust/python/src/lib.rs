//! The PyO3 module `softlan._core`: translation of types and errors between Python and the Rust crates, and nothing else.
//!
//! `python/softlan/_core.pyi` is its description for people and type checkers.
#![allow(missing_docs)] // What Python sees is documented in the stub.

mod awaits;
mod convert;
mod devices;
mod endpoint;
mod frames;
mod ports;
mod relay;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    awaits::init(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    convert::register(module)?;
    frames::register(module)?;
    endpoint::register(module)?;
    relay::register(module)?;
    devices::register(module)?;
    ports::register(module)
}
