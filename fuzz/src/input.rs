//! A fuzzer's bytes as numbers, pieces and lines.

/// Takes numbers and pieces off the front of the bytes; what is used up gives zeros.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// At most so many of the next bytes.
    pub fn piece(&mut self, len: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// Up to the next line break, without it.
    pub fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let line = self.piece(end.unwrap_or(self.0.len()));
        self.byte();
        line
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cuts `bytes` into pieces whose lengths follow from `seed`: 0, one byte each; 255, one piece.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, u32::from(seed));
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match seed {
            0 => 1,
            255 => rest.len(),
            // Mostly a few bytes, now and then many.
            _ if state >> 29 == 0 => (state >> 16) as usize % 4096,
            _ => (state >> 16) as usize % 8 + 1,
        };
        let piece;
        (piece, rest) = rest.split_at(len.clamp(1, rest.len()));
        Some(piece)
    })
}
