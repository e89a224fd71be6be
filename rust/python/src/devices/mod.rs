//! What a bridge takes, for each system: the classes Python sees, and the ports they become.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use crate::convert::core_error;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
mod memory;
#[cfg(windows)]
mod windows;

#[cfg(not(any(target_os = "linux", windows)))]
pub use elsewhere::Device;
#[cfg(target_os = "linux")]
pub use linux::Device;
#[cfg(windows)]
pub use windows::Device;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    #[cfg(target_os = "linux")]
    linux::register(module)?;
    #[cfg(not(target_os = "linux"))]
    elsewhere::register(module)?;
    #[cfg(windows)]
    windows::register(module)?;
    memory::register(module)
}

/// A device until a bridge takes it.
struct Held<T>(Mutex<Option<T>>);

impl<T> Held<T> {
    fn new(device: T) -> Self {
        Self(Mutex::new(Some(device)))
    }

    fn take(&self) -> PyResult<T> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| core_error("taken", "a bridge has this device already, or it is closed"))
    }
}
