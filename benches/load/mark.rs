//! What says of every byte whose it is: a message is its owner's mark and its number, over and
//! over.
//!
//! Pure functions. Length and kind of a message follow from mark and number, so that a message that
//! was cut, or grown together with another, is found without remembering what was sent.

/// The mark and the number, as hexadecimal digits.
pub const UNIT: usize = 16;

/// The longest message.
pub const MAX: usize = 4096;

/// Whose message it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub owner: u32,
    pub number: u32,
}

impl Mark {
    fn unit(self) -> [u8; UNIT] {
        let digits = u64::from(self.owner) << 32 | u64::from(self.number);
        std::array::from_fn(|at| {
            let digit = (digits >> (60 - 4 * at)) as u8 & 15;
            if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }
        })
    }

    /// How long this message is: a unit at least, mostly short.
    pub fn len(self) -> usize {
        let dice = mixed(u64::from(self.owner) << 32 | u64::from(self.number));
        let limit = match dice >> 32 & 63 {
            0 => MAX - UNIT,
            1..=8 => 512,
            _ => 112,
        };
        UNIT + (dice & 0xffff_ffff) as usize % (limit + 1)
    }

    /// Writes the message to `out`, instead of what was there.
    pub fn write(self, out: &mut Vec<u8>) {
        let unit = self.unit();
        out.clear();
        while out.len() < self.len() {
            out.extend_from_slice(&unit);
        }
        out.truncate(self.len());
    }

    /// The mark of a message, if every byte of it is its own.
    pub fn of(message: &[u8]) -> Option<Mark> {
        let unit = message.first_chunk::<UNIT>()?;
        let mut digits = 0u64;
        for byte in unit {
            digits = digits << 4 | u64::from((*byte as char).to_digit(16)?);
        }
        let mark = Mark { owner: (digits >> 32) as u32, number: digits as u32 };
        let (units, rest) = message.as_chunks::<UNIT>();
        let is_whole = message.len() == mark.len()
            && units.iter().all(|other| other == unit)
            && *rest == unit[..rest.len()];
        is_whole.then_some(mark)
    }
}

/// Scatters a number over all bits (the finisher of splitmix64).
pub fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Numbers that are random enough for a test, and the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(mixed(seed))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mixed(self.0) % limit
    }

    /// True once in so many times; never, if that is 0.
    pub fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_whose_it_is() {
        let mut message = Vec::new();
        for number in 0..2000 {
            let mark = Mark { owner: 0x0102_abcd, number };
            mark.write(&mut message);
            assert!((UNIT..=MAX).contains(&message.len()));
            assert_eq!(Mark::of(&message), Some(mark));
        }
    }

    #[test]
    fn a_byte_of_another_is_found_wherever_it_is() {
        let (mut message, mut other) = (Vec::new(), Vec::new());
        Mark { owner: 1, number: 5 }.write(&mut message);
        Mark { owner: 2, number: 6 }.write(&mut other);
        for at in 0..message.len() {
            let mut mixed = message.clone();
            mixed[at] = if mixed[at] == b'7' { b'8' } else { b'7' };
            // A digit of the unit itself makes another mark, whose length or rest is wrong.
            assert_eq!(Mark::of(&mixed), None, "byte {at}");
        }
        assert_eq!(Mark::of(&message[..message.len() - 1]), None);
        message.extend_from_slice(&other);
        assert_eq!(Mark::of(&message), None);
        assert_eq!(Mark::of(b""), None);
    }
}
