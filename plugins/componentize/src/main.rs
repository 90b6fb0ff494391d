//! `componentize IN OUT`: makes a component of a core module that carries its WIT.

use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use wit_component::ComponentEncoder;

/// Reads, encodes, writes.
fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else { bail!("usage: componentize CORE_MODULE COMPONENT") };
    let module = fs::read(input).with_context(|| format!("cannot read {input}"))?;
    let component = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    fs::write(output, component).with_context(|| format!("cannot write {output}"))
}
