//! Bytes of binary formats, piece by piece: what is not there is a fault in the format's words.

use super::fault::Fault;

/// Bytes that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    /// Them.
    rest: &'a [u8],
    /// Makes a fault of what was found instead.
    bad: fn(&str) -> Fault,
}

impl<'a> Bytes<'a> {
    /// All of these bytes, in a format with these faults.
    pub(super) fn new(rest: &'a [u8], bad: fn(&str) -> Fault) -> Self {
        Self { rest, bad }
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all is read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next so many bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| (self.bad)(&format!("{} bytes where {count} are needed", self.rest.len())))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next so many bytes as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| (self.bad)("an end"))
    }

    /// A number of variable length: seven bits a byte, the lowest first.
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err((self.bad)("a number of more than 64 bits"))
    }
}

/// A number whose sign is in its last bit.
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault with no words of its own.
    fn bad(words: &str) -> Fault {
        Fault { code: "bad", message: words.to_owned() }
    }

    #[test]
    fn numbers_of_variable_length() {
        let number = |bytes: &[u8]| Bytes::new(bytes, bad).varint().map_err(|fault| fault.message);
        assert_eq!((number(&[0]), number(&[0x7f]), number(&[0x80, 1])), (Ok(0), Ok(127), Ok(128)));
        assert_eq!(number(&[[0xff; 9].as_slice(), &[1]].concat()), Ok(u64::MAX));
        assert_eq!(number(&[[0xff; 9].as_slice(), &[2]].concat()), Err("a number of more than 64 bits".to_owned()));
        assert_eq!(number(&[0x80]), Err("0 bytes where 1 are needed".to_owned()));
        assert_eq!([0, 1, 2, u64::MAX].map(unzigzag), [0, -1, 1, i64::MIN]);
    }
}
