//! What a bridge takes, for each system: the classes Python sees, and the ports they become.

use pyo3::prelude::*;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
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
    Ok(())
}
