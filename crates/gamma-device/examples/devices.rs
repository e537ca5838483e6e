//! Lists what `--device` can be, for this build on this machine, with what each device calls itself.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use gamma_device::{Backend, DeviceError, DeviceName, describe};

fn main() -> Result<(), DeviceError> {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_built()) {
        for number in 0..backend.devices().len() {
            let name: DeviceName = format!("{}:{number}", backend.name()).parse()?;
            match name.open() {
                Ok(device) => println!("{name} {}", describe(&device)),
                Err(error) => println!("{error}"),
            }
        }
    }
    Ok(())
}
