//! Why a device cannot be had.

use crate::{Backend, DeviceName};

/// Why a device cannot be had, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No name of a device.
    #[error(
        "there is no device `{found}`: this build has {}; a number may follow, as in `wgpu:1`",
        Backend::built()
    )]
    Unknown {
        /// What was given.
        found: String,
    },
    /// The backend is not part of this build.
    #[error(
        "this build has no `{}`, only {}: build gamma with `--features {}`{}",
        .backend.name(), Backend::built(), .backend.feature(), aside(*.backend)
    )]
    NotBuilt {
        /// The backend.
        backend: Backend,
    },
    /// The machine has nothing for the backend.
    #[error("this machine has no device for `{}`, which takes {}", .backend.name(), .backend.wants())]
    NoDevice {
        /// The backend.
        backend: Backend,
    },
    /// The machine has fewer devices.
    #[error("there is no device `{name}`: this machine has {count} for it, counted from 0")]
    NoSuch {
        /// What was given.
        name: DeviceName,
        /// Devices that there are.
        count: usize,
    },
    /// The device is there and cannot be used.
    #[error("device `{name}` cannot be opened: {reason}; it takes {}", .name.backend().wants())]
    Refused {
        /// What was given.
        name: DeviceName,
        /// What the driver or the backend said.
        reason: String,
    },
}

/// What building a backend takes besides the feature.
fn aside(backend: Backend) -> &'static str {
    match backend {
        Backend::Cuda => {
            ", which downloads a compiler while it builds; without that site, NVIDIA cards run through \
             `--features wgpu`"
        }
        Backend::Rocm => ", on a machine with ROCm",
        Backend::Metal => ", on a machine of Apple's",
        _ => "",
    }
}
