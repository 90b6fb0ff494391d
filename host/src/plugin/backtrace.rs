//! Where a plugin trapped, in words that its author can use: functions, and lines where the component tells them.
//!
//! Comes in: wasmtime's frames, and the component's own `name` and `.debug_line` sections, which are a stranger's bytes.
//! Promise: what they can cost is bounded. wasmtime can do this by itself (`wasm_backtrace_details`), but reads all of
//! DWARF for each frame of each trap then, of which a few hundred KiB can be made to take all memory. Here only the line
//! programs are read, once from front to back, of so many bytes, and for so many traps of a plugin.

use std::{
    collections::HashMap,
    fmt::Write as _,
    num::NonZero,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use gimli::{AttributeValue, DebugLine, DebugLineOffset, DebugLineStr, EndianSlice, LineProgramHeader, LittleEndian};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::WasmBacktrace;

use super::failure::clean_to;

/// Bytes of line programs that are kept of one component: one of Rust with its standard library has about one MiB.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Times that they are read: each takes up to 0.1 s, and the same trap costs it once.
const LOOKUPS_MAX: usize = 64;
/// Bytes of one function's name, as shown.
const NAME_BYTES_MAX: usize = 200;
/// Longest name that is demangled: some forms unfold to far more than they are.
const MANGLED_BYTES_MAX: usize = 1024;

/// How gimli sees a section.
type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Which line of the source each instruction of a component comes from, where it tells.
#[derive(Debug, Default)]
pub(super) struct DebugLines {
    /// Its core modules that tell.
    modules: Vec<Module>,
    /// What was looked up before, by offset in the component, and how often the sections were read.
    known: Mutex<(HashMap<usize, Option<String>>, usize)>,
}

/// A core module of a component.
#[derive(Debug, Default)]
struct Module {
    /// Where its code lies in the component.
    code: Range<usize>,
    /// Section `.debug_line`.
    line: Vec<u8>,
    /// Section `.debug_line_str`.
    line_str: Vec<u8>,
}

impl DebugLines {
    /// Takes the line programs out of a component, if they are not too large.
    pub(super) fn read(component: &[u8]) -> Self {
        let mut lines = Self::default();
        let mut open = Vec::new();
        let mut room = LINE_BYTES_MAX;
        for payload in Parser::new(0).parse_all(component) {
            match payload {
                // What encloses it is a component, which has no code.
                Ok(Payload::Version { encoding, .. }) => {
                    open.push((encoding == Encoding::Module).then(Module::default));
                }
                Ok(Payload::CodeSectionStart { range, .. }) => {
                    if let Some(Some(module)) = open.last_mut() {
                        module.code = range;
                    }
                }
                Ok(Payload::CustomSection(section)) => {
                    let Some(Some(module)) = open.last_mut() else { continue };
                    let place = match section.name() {
                        ".debug_line" => &mut module.line,
                        ".debug_line_str" => &mut module.line_str,
                        _ => continue,
                    };
                    let Some(left) = room.checked_sub(section.data().len()) else { return Self::default() };
                    room = left;
                    *place = section.data().to_vec();
                }
                Ok(Payload::End(_)) => {
                    lines.modules.extend(open.pop().flatten().filter(|module| !module.line.is_empty()));
                }
                Ok(_) => {}
                // It was compiled before, so it can be read; if not, there are no lines.
                Err(_) => return Self::default(),
            }
        }
        lines
    }

    /// File and line of each instruction, by its offset in the component.
    fn find(&self, offsets: &[usize]) -> Vec<Option<String>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (texts, lookups) = &mut *known;
        if offsets.iter().any(|offset| !texts.contains_key(offset)) && *lookups < LOOKUPS_MAX {
            *lookups += 1;
            for module in &self.modules {
                let mut inside: Vec<_> = offsets.iter().copied().filter(|at| module.code.contains(at)).collect();
                inside.sort_unstable();
                inside.dedup();
                let relative: Vec<_> = inside.iter().map(|at| (at - module.code.start) as u64).collect();
                // A reader that panics is a fault of ours; the function's name is told all the same.
                let found = catch_unwind(AssertUnwindSafe(|| module.find(&relative))).unwrap_or_default();
                texts.extend(inside.into_iter().zip(found));
            }
        }
        offsets.iter().map(|offset| texts.get(offset).cloned().flatten()).collect()
    }
}

impl Module {
    /// File and line of each address, which ascend and count from the start of the code. Reads every program once.
    fn find(&self, addresses: &[u64]) -> Vec<Option<String>> {
        let mut found = vec![None; addresses.len()];
        let section = DebugLine::new(&self.line, LittleEndian);
        let mut at = 0;
        while at < self.line.len() {
            // wasm32 has addresses of 4 bytes.
            let Ok(program) = section.program(DebugLineOffset(at), 4, None, None) else { break };
            let length_bytes = program.header().format().initial_length_size();
            at += program.header().unit_length() + usize::from(length_bytes);
            let mut rows = program.rows();
            let mut before: Option<(u64, u64, u64)> = None;
            while let Ok(Some((header, row))) = rows.next_row() {
                // Functions that the linker dropped begin at 0, where no function can be.
                if let Some((from, file, line)) = before.filter(|(from, ..)| *from > 0) {
                    let first = addresses.partition_point(|address| *address < from);
                    let behind = addresses.partition_point(|address| *address < row.address());
                    for place in found.get_mut(first..behind).unwrap_or_default() {
                        place.get_or_insert_with(|| self.text(header, file, line));
                    }
                }
                let line = row.line().map_or(0, NonZero::get);
                before = (!row.end_sequence()).then(|| (row.address(), row.file_index(), line));
            }
        }
        found
    }

    /// A file and a line; the file without its folder where that is not in the header.
    fn text(&self, header: &LineProgramHeader<Slice<'_>>, file: u64, line: u64) -> String {
        let name = header.file(file).map(|file| self.string(&file.path_name()));
        let folder = header.file(file).and_then(|file| file.directory(header)).map(|folder| self.string(&folder));
        match (folder, name) {
            (Some(folder), Some(name)) if !folder.is_empty() && !name.starts_with('/') => {
                format!("{folder}/{name}:{line}")
            }
            (_, Some(name)) => format!("{name}:{line}"),
            (_, None) => format!("line {line}"),
        }
    }

    /// A string of the header, which may lie in another section.
    fn string(&self, value: &AttributeValue<Slice<'_>>) -> String {
        let strings = DebugLineStr::from(EndianSlice::new(&self.line_str, LittleEndian));
        let slice = match value {
            AttributeValue::String(slice) => Some(*slice),
            AttributeValue::DebugLineStrRef(offset) => strings.get_str(*offset).ok(),
            _ => None,
        };
        let bytes = slice.map(|slice| slice.slice()).unwrap_or_default();
        clean_to(&String::from_utf8_lossy(bytes.get(..NAME_BYTES_MAX).unwrap_or(bytes)), NAME_BYTES_MAX)
    }
}

/// The frames of a trap, one a line, innermost first; empty where there are none.
pub(super) fn backtrace(error: &wasmtime::Error, lines: &DebugLines) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let offsets: Vec<_> = trace.frames().iter().map(|frame| frame.module_offset().unwrap_or(usize::MAX)).collect();
    let places = lines.find(&offsets);
    let mut text = String::new();
    for ((frame, offset), place) in trace.frames().iter().zip(offsets).zip(places) {
        let name = frame.func_name().map_or_else(|| format!("<function {}>", frame.func_index()), demangle);
        // Writing to a String cannot fail.
        let _ = match place {
            Some(place) => write!(text, "\n  at {name} ({place})"),
            None => write!(text, "\n  at {name} (byte {offset:#x} of the component)"),
        };
    }
    text
}

/// A function's name as its author wrote it.
fn demangle(name: &str) -> String {
    let plain = match rustc_demangle::try_demangle(name) {
        Ok(demangled) if name.len() <= MANGLED_BYTES_MAX => format!("{demangled:#}"),
        _ => name.to_owned(),
    };
    clean_to(&plain, NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rust_are_demangled_and_others_stay() {
        assert_eq!(demangle("_ZN7hostile6crimes4trap17h0123456789abcdefE"), "hostile::crimes::trap");
        assert_eq!(demangle("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(demangle("py_eval\u{1b}"), "py_eval ");
        assert!(demangle(&"x".repeat(10_000)).len() < 250);
    }

    #[test]
    fn sections_that_are_broken_or_too_large_are_passed_over() {
        let custom = |bytes: usize| {
            let text = format!("(module (func) (@custom \".debug_line\" \"{}\"))", "\\ff".repeat(bytes));
            let module = wat::parse_str(text).unwrap();
            let lines = DebugLines::read(&module);
            (lines.modules.len(), lines.find(&[30, usize::MAX]))
        };
        assert_eq!(custom(100), (1, vec![None, None]));
        assert_eq!(custom(LINE_BYTES_MAX + 1), (0, vec![None, None]));
        assert!(DebugLines::read(b"no component").modules.is_empty());
    }
}
