//! Plugins that do their worst, and plugins that do their work: what comes out of the plugin room for each.
//!
//! The components are `hostile.wasm`, built by `make plugins`, and ones made here from WebAssembly text for the crimes
//! that no compiler produces. The process that runs these tests is the host: that they end at all is half the proof.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod capabilities;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod made;
#[cfg(test)]
mod support;
#[cfg(test)]
mod time_and_memory;
#[cfg(test)]
mod traps;
