//! Devices by name: `cpu`, `wgpu`, `cuda:1`.
//!
//! Which backends there are is settled when a program is built, by the features of this crate; which
//! of them runs the model is settled when it is run. A name that this build or this machine cannot
//! serve is an error that says what to do, and never a panic.
//!
//! ```
//! use gamma_device::DeviceName;
//!
//! let device = "cpu".parse::<DeviceName>()?.open()?;
//! assert_eq!(gamma_device::describe(&device), "cpu");
//! # Ok::<(), gamma_device::DeviceError>(())
//! ```
//!
//! | feature | name | runs on |
//! |---|---|---|
//! | `flex` (default) | `cpu` | the CPU, in Rust alone |
//! | `wgpu` | `wgpu` | graphics cards through Vulkan, Metal or DirectX |
//! | `vulkan`, `metal` | `vulkan`, `metal` | the same through this interface alone, with its own shaders |
//! | `cuda` | `cuda` | NVIDIA cards; the build downloads a compiler |
//! | `rocm` | `rocm` | AMD cards; the build needs `ROCm` |

mod backend;
mod error;
mod name;

use std::{env, sync::OnceLock};

use burn::tensor::Device;

pub use backend::Backend;
pub use error::DeviceError;
pub use name::DeviceName;

/// The device in words: `cpu`, or how a card names itself and what is compiled for it. Results are the
/// same bit for bit only where these words are.
#[must_use]
pub fn describe(device: &Device) -> String {
    let card = backend::identity(device);
    let known =
        || if Backend::Cpu.devices().contains(device) { Some(Backend::Cpu.name().to_owned()) } else { None };
    card.or_else(known).unwrap_or_else(|| format!("{device:?}"))
}

/// The device of the test suites, which are the same for all backends: the one that the variable
/// `GAMMA_TEST_DEVICE` names, else the CPU.
///
/// # Panics
/// If there is no such device.
#[must_use]
pub fn tested() -> Device {
    static TESTED: OnceLock<Device> = OnceLock::new();
    let open = || {
        let name = env::var("GAMMA_TEST_DEVICE").map_or(Ok(DeviceName::CPU), |name| name.parse());
        name.and_then(DeviceName::open).unwrap_or_else(|error| panic!("GAMMA_TEST_DEVICE: {error}"))
    };
    TESTED.get_or_init(open).clone()
}
