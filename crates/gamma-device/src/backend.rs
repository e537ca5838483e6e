//! The backends that burn has, and which of them this build does.

use burn::tensor::{Device, DeviceType};

/// What runs tensor operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The CPU.
    Cpu,
    /// Graphics cards, by whichever interface the machine has.
    Wgpu,
    /// The same through Vulkan alone.
    Vulkan,
    /// The same through Metal alone.
    Metal,
    /// NVIDIA cards.
    Cuda,
    /// AMD cards.
    Rocm,
}

impl Backend {
    /// All of them, built or not.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Wgpu, Self::Vulkan, Self::Metal, Self::Cuda, Self::Rocm];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }

    /// The cargo feature that builds it.
    #[must_use]
    pub fn feature(self) -> &'static str {
        if self == Self::Cpu { "flex" } else { self.name() }
    }

    /// Whether this build has it.
    #[must_use]
    pub fn is_built(self) -> bool {
        self.kind().is_some()
    }

    /// The names of all that this build has.
    #[must_use]
    pub fn built() -> String {
        let built = Self::ALL.into_iter().filter(|backend| backend.is_built());
        let names: Vec<String> = built.map(|backend| format!("`{}`", backend.name())).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The devices that this machine has for it; none where it is not built.
    #[must_use]
    pub fn devices(self) -> Vec<Device> {
        self.kind().map(|kind| Device::enumerate(kind).into_vec()).unwrap_or_default()
    }

    /// What a machine needs for it.
    pub(crate) fn wants(self) -> &'static str {
        match self {
            Self::Cpu => "a CPU",
            Self::Wgpu => {
                "a graphics card with its driver; on Linux also the Vulkan loader (Debian: libvulkan1), and \
                 where there is no card mesa-vulkan-drivers, which computes on the CPU"
            }
            Self::Vulkan => {
                "a driver for Vulkan and its loader (Debian: libvulkan1); mesa-vulkan-drivers computes on the CPU"
            }
            Self::Metal => "a machine of Apple's",
            Self::Cuda => "an NVIDIA card and its driver (libcuda)",
            Self::Rocm => "an AMD card, its driver and ROCm",
        }
    }

    fn kind(self) -> Option<DeviceType> {
        match self {
            #[cfg(feature = "flex")]
            Self::Cpu => Some(DeviceType::Flex),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(DeviceType::Wgpu),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(DeviceType::Vulkan),
            #[cfg(feature = "metal")]
            Self::Metal => Some(DeviceType::Metal),
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(DeviceType::Cuda),
            #[cfg(feature = "rocm")]
            Self::Rocm => Some(DeviceType::Rocm),
            #[allow(unreachable_patterns, reason = "reached unless all features are on")]
            _ => None,
        }
    }
}

/// Who a card is; opens it. `None` for the CPU.
#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
pub(crate) fn identity(device: &Device) -> Option<String> {
    device.identity().map(|card| format!("{}, {}", card.name, card.fingerprint))
}

#[cfg(not(any(feature = "wgpu", feature = "cuda", feature = "rocm")))]
pub(crate) fn identity(_: &Device) -> Option<String> {
    None
}
