//! What a user writes for a device.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
};

use burn::tensor::Device;

use crate::{Backend, DeviceError, backend::identity};

/// A backend, and which of its devices: `cpu`, `wgpu`, `cuda:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceName {
    backend: Backend,
    number: Option<usize>,
}

impl DeviceName {
    /// The CPU.
    pub const CPU: Self = Self { backend: Backend::Cpu, number: None };

    /// The backend.
    #[must_use]
    pub fn backend(self) -> Backend {
        self.backend
    }

    /// Opens the device; without a number the one that the backend thinks best.
    ///
    /// # Errors
    /// [`DeviceError`] if the backend is not built, or the machine has no such device or cannot use it.
    pub fn open(self) -> Result<Device, DeviceError> {
        let Self { backend, number } = self;
        if !backend.is_built() {
            return Err(DeviceError::NotBuilt { backend });
        }
        // Whom nobody finds is not asked for: backends panic where there is no driver.
        let mut devices = guarded(|| backend.devices()).map_err(|reason| self.refused(reason))?;
        let count = devices.len();
        if count == 0 {
            return Err(DeviceError::NoDevice { backend });
        }
        if number.is_some_and(|number| number >= count) {
            return Err(DeviceError::NoSuch { name: self, count });
        }
        let device = match number {
            Some(number) => devices.swap_remove(number),
            None => best(backend).unwrap_or_else(|| devices.swap_remove(0)),
        };
        // A device is opened by its first use, here, where a refusal can still be an error.
        guarded(|| identity(&device)).map_err(|reason| self.refused(reason))?;
        Ok(device)
    }

    fn refused(self, reason: String) -> DeviceError {
        DeviceError::Refused { name: self, reason }
    }
}

/// Of several graphics cards the fastest, as the driver sees it.
fn best(backend: Backend) -> Option<Device> {
    match backend {
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        Backend::Metal => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        _ => None,
    }
}

/// What `work` gives, or the words that it panicked with: backends have no other way to refuse.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| words(&*payload))
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason").to_owned()
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { found: text.to_owned() };
        let (name, number) = match text.split_once(':') {
            None => (text, None),
            Some((name, number)) => (name, Some(number.parse().map_err(|_| unknown())?)),
        };
        let named = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        Ok(Self { backend: named.ok_or_else(unknown)?, number })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend.name())?;
        self.number.map_or(Ok(()), |number| write!(f, ":{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse().and_then(DeviceName::open).expect_err("refused").to_string()
    }

    #[test]
    fn names_are_read_and_written_alike() {
        for text in ["cpu", "wgpu", "wgpu:1", "vulkan:0", "metal", "cuda:12", "rocm"] {
            assert_eq!(text.parse::<DeviceName>().expect("a name").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_this_build_has() {
        for text in ["", "gpu", "CPU", "wgpu:", "wgpu:x", "cuda:-1", "cpu:0:0"] {
            let error = refusal(text);
            assert!(error.contains(&format!("`{text}`")) && error.contains(&Backend::built()), "{error}");
        }
    }

    #[test]
    fn backends_that_are_not_built_name_their_feature() {
        for backend in Backend::ALL.into_iter().filter(|backend| !backend.is_built()) {
            let error = refusal(backend.name());
            assert!(error.contains(&format!("`--features {}`", backend.feature())), "{error}");
        }
    }

    #[test]
    fn backends_without_a_device_on_this_machine_say_what_they_take() {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_built()) {
            let count = backend.devices().len();
            let error = refusal(&format!("{}:{count}", backend.name()));
            let expected = if count == 0 { "which takes" } else { "counted from 0" };
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn panics_become_the_words_of_the_refusal() {
        let name: DeviceName = "cuda:1".parse().expect("a name");
        let reason = guarded(|| panic!("no {}", "driver")).expect_err("it panics");
        let error = name.refused(reason).to_string();
        assert!(
            error.starts_with("device `cuda:1` cannot be opened: no driver; it takes an NVIDIA"),
            "{error}"
        );
    }
}
