//! A numbered message: which stream it is of, since when its source numbers, its number, and when
//! it was sent. `stream epoch number micros `, whatever fills it up.
//!
//! Pure functions; both sides are in one process, so that one clock is enough.

use std::io::Write;

/// Writes a message of `size` bytes at least to `out`, instead of what was there.
pub fn write(out: &mut Vec<u8>, size: usize, numbers: [u64; 4]) {
    out.clear();
    let [stream, epoch, number, micros] = numbers;
    write!(out, "{stream} {epoch} {number} {micros} ").expect("writing to a Vec does not fail");
    out.resize(out.len().max(size), b'.');
}

/// The numbers of a message, if it is one.
pub fn numbers(message: &[u8]) -> Option<[u64; 4]> {
    let mut found = [0; 4];
    let mut bytes = message.iter();
    for number in &mut found {
        let mut digits = 0;
        loop {
            match bytes.next() {
                Some(digit @ b'0'..=b'9') if digits < 18 => {
                    *number = *number * 10 + u64::from(digit - b'0');
                    digits += 1;
                }
                Some(b' ') if digits > 0 => break,
                _ => return None,
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_four_numbers_however_it_is_filled_up() {
        assert_eq!(numbers(b"3 1 17 250000 ......"), Some([3, 1, 17, 250_000]));
        for other in [&b""[..], b"1 2 3", b"1 2 3 4", b"1 2 x 4 ", b"-1 2 3 4 ", b"\xff 2 3 4 "] {
            assert_eq!(numbers(other), None);
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut message = b"what was there".to_vec();
        let numbers_of_it = [0, 12, 345, 999_999_999_999_999_999];
        write(&mut message, 40, numbers_of_it);
        assert_eq!((message.len(), numbers(&message)), (40, Some(numbers_of_it)));
    }
}
