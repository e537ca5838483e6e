//! The searches run by run, as they are described: what the fast ones are tested against.

mod fit;
pub(super) mod ranged;
pub(super) mod scaled;
pub(super) mod single;
