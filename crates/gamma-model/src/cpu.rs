//! What differs between the CPU and other devices.

use burn::tensor::Device;
use rayon::prelude::*;

/// Whether `device` is the CPU, where tensors are plain memory.
pub(crate) fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().without_autodiff() == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        _ = device;
        false
    }
}

/// What `work` makes of each item, in order: on all threads where `device` is the CPU. A card has one
/// queue of work for each thread, and what one thread asks for may run before what another had asked for
/// and it builds on; there, all work is asked for by this thread.
pub(crate) fn each<T: Send, U: Send>(
    device: &Device,
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> U + Sync + Send,
) -> Vec<U> {
    if is_cpu(device) {
        let items: Vec<T> = items.into_iter().collect();
        items.into_par_iter().map(work).collect()
    } else {
        items.into_iter().map(work).collect()
    }
}
