//! A drill with everything around it: what is looked at before and after, and what a killed one left.

pub(crate) mod play;
pub(crate) mod repair;
pub(crate) mod watch;

pub(crate) use play::stage;
