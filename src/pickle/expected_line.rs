//! Lines that are known before they are read or written.

/// The longest line that can be expected, in bytes. A line is copied and compared as one number, as most are too short for a
/// call of `memcpy`.
pub(super) const MAX_LENGTH: usize = 16;

/// An opcode and its argument, the newline included.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedLine {
    bytes: [u8; MAX_LENGTH],
    length: usize,
    /// The bits that are compared.
    mask: u128,
}

impl ExpectedLine {
    /// The line of an opcode with this argument. A line that is too long matches nothing.
    pub fn new(opcode: u8, argument: &[u8]) -> Self {
        let length = argument.len() + 2;
        let mut bytes = [b' '; MAX_LENGTH];
        let Some(line) = bytes.get_mut(..length) else {
            // No line begins with a newline.
            let bytes = [b'\n'; MAX_LENGTH];
            return Self {
                bytes,
                length: 0,
                mask: u128::MAX,
            };
        };
        line[0] = opcode;
        line[1..length - 1].copy_from_slice(argument);
        line[length - 1] = b'\n';
        Self {
            bytes,
            length,
            mask: u128::MAX >> (8 * (MAX_LENGTH - length)),
        }
    }

    /// The line's length, if `data` begins with it. `None` also if `data` is shorter than [`MAX_LENGTH`].
    #[inline]
    pub(super) fn match_start(&self, data: &[u8]) -> Option<usize> {
        let differing = u128::from_le_bytes(self.bytes) ^ u128::from_le_bytes(*data.first_chunk()?);
        (differing & self.mask == 0).then_some(self.length)
    }

    /// The line, with padding after it, and its length.
    #[inline]
    pub(super) fn padded(&self) -> (&[u8; MAX_LENGTH], usize) {
        (&self.bytes, self.length)
    }
}

/// The next PUT of a pickle, the most common opcode. Its numbers count up.
#[derive(Debug, Clone)]
pub struct NextPut(ExpectedLine);

impl Default for NextPut {
    /// The first of a pickle.
    fn default() -> Self {
        Self(ExpectedLine {
            bytes: *b"p0\n             ",
            length: 3,
            mask: 0xff_ffff,
        })
    }
}

impl NextPut {
    /// Its line.
    #[inline]
    pub fn line(&self) -> &ExpectedLine {
        &self.0
    }

    /// Adds one to its number.
    #[inline]
    pub fn increment(&mut self) {
        let ExpectedLine { bytes, length, mask } = &mut self.0;
        for digit in bytes[1..*length - 1].iter_mut().rev() {
            if *digit != b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        // All were nines.
        bytes[1] = b'1';
        bytes[*length - 1] = b'0';
        bytes[*length] = b'\n';
        *length += 1;
        *mask = *mask << 8 | 0xff;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn puts_count_up() {
        let mut put = NextPut::default();
        for number in 0..1_200_000 {
            let spelled = format!("p{number}\n");
            let (line, length) = put.line().padded();
            assert_eq!(&line[..length], spelled.as_bytes());
            let spelled = format!("{spelled}sVwhatever follows");
            assert_eq!(put.line().match_start(spelled.as_bytes()), Some(length));
            put.increment();
            assert_eq!(put.line().match_start(spelled.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn a_line_is_found_where_data_begins_with_it(
            argument in prop::collection::vec(b'a'..=b'b', 0..20),
            other in prop::collection::vec(b'a'..=b'b', 0..20),
        ) {
            let line = ExpectedLine::new(b'V', &argument);
            for argument in [&argument, &other] {
                let whole = [b"V", argument.as_slice(), b"\n"].concat();
                let data = [&whole, b"more than the line".as_slice()].concat();
                let (bytes, length) = line.padded();
                let found = (bytes[..length] == whole).then_some(whole.len());
                prop_assert_eq!(line.match_start(&data), found);
                prop_assert_eq!(line.match_start(&data[..MAX_LENGTH - 1]), None);
            }
            prop_assert_eq!(line.padded().1 == 0, argument.len() > MAX_LENGTH - 2);
        }
    }
}
