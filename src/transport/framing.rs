//! Where one STUN message ends and the next begins on a stream (RFC 8489 section 6.2.2). Pure: bytes in, frames out.
//!
//! The first four bytes of a message say how long it is. A peer may send them one at a time, or many messages at once;
//! either way the buffer grows only when a header asks for it and never beyond the limit. A stream that is not STUN is
//! recognised by its first byte or its length field, so a stray HTTP client costs nothing.

use std::ops::Range;

/// The length of a STUN header, which the length field does not count.
const HEADER: usize = 20;

/// What a connection is given before its first header: enough for an ordinary request.
const INITIAL: usize = 128;

/// The stream is not a sequence of STUN messages. There is no way to find the next message: close the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The two leading bits of a message are not zero.
    #[error("the stream does not carry STUN")]
    NotStun,
    /// The length field is not a multiple of four.
    #[error("the length field is not a multiple of four")]
    BadLength,
    /// The message is longer than the limit.
    #[error("the message is longer than the limit")]
    TooLong,
}

/// The length of the message that begins with `bytes`, or `None` where fewer than four bytes are there.
///
/// # Errors
/// [`FrameError`] where no message begins like this.
pub fn message_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    if bytes.first().is_some_and(|first| first & 0xC0 != 0) {
        return Err(FrameError::NotStun);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length % 4 != 0 {
        return Err(FrameError::BadLength);
    }
    Ok(Some(length.saturating_add(HEADER)))
}

/// Collects what a stream brings and hands out whole messages.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    /// What is received and not yet handed out.
    held: Range<usize>,
    limit: usize,
}

impl Frames {
    /// An empty collector for messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), held: 0..0, limit: limit.max(HEADER) }
    }

    /// Where the next bytes are to be read into. Never empty as long as [`Frames::next`] was asked until it had nothing.
    pub fn space(&mut self) -> &mut [u8] {
        if self.held.is_empty() {
            self.held = 0..0;
        } else if self.held.start > 0 {
            self.buffer.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
        let held = self.buffer.get(..self.held.end).unwrap_or_default();
        let wanted = message_length(held).ok().flatten().unwrap_or(INITIAL).clamp(INITIAL, self.limit.max(INITIAL));
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.buffer.get_mut(self.held.end..).unwrap_or_default()
    }

    /// Says how many bytes were read into [`Frames::space`].
    pub fn advance(&mut self, count: usize) {
        self.held.end = self.held.end.saturating_add(count).min(self.buffer.len());
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`FrameError`] where the stream is not STUN; the connection is to be closed.
    #[expect(clippy::should_implement_trait, reason = "a frame borrows the collector, which an Iterator cannot say")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let held = self.buffer.get(self.held.clone()).unwrap_or_default();
        let Some(length) = message_length(held)? else { return Ok(None) };
        if length > self.limit {
            return Err(FrameError::TooLong);
        }
        if held.len() < length {
            return Ok(None);
        }
        let start = self.held.start;
        self.held.start = start.saturating_add(length);
        Ok(self.buffer.get(start..self.held.start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(body: usize) -> Vec<u8> {
        let mut bytes = vec![0x5a; HEADER + body];
        bytes[..4].copy_from_slice(&[0, 1, (body >> 8) as u8, body as u8]);
        bytes
    }

    /// Feeds a stream in the given pieces and collects the messages.
    fn frames(limit: usize, stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Frames::new(limit);
        let mut whole = Vec::new();
        for mut chunk in stream.chunks(piece) {
            while !chunk.is_empty() {
                let space = frames.space();
                assert!(!space.is_empty(), "no room to read into");
                let count = space.len().min(chunk.len());
                space[..count].copy_from_slice(&chunk[..count]);
                frames.advance(count);
                chunk = &chunk[count..];
                while let Some(frame) = frames.next()? {
                    whole.push(frame.to_vec());
                }
            }
        }
        Ok(whole)
    }

    #[test]
    fn messages_are_found_whatever_the_pieces_they_come_in() {
        let sent: Vec<Vec<u8>> = [0, 4, 300, 0, 1_000, 8].into_iter().map(message).collect();
        let stream = sent.concat();
        for piece in 1..stream.len() {
            assert_eq!(frames(2_048, &stream, piece).expect("frames"), sent, "pieces of {piece}");
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_by_its_header() {
        assert_eq!(frames(100, &message(80), 1).expect("frames").len(), 1);
        assert_eq!(frames(100, &message(84)[..4], 1), Err(FrameError::TooLong));
    }

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        assert_eq!(frames(2_048, b"G", 1), Err(FrameError::NotStun));
        assert_eq!(frames(2_048, &[0, 1, 0, 3], 1), Err(FrameError::BadLength));
    }

    #[test]
    fn a_silent_connection_costs_no_buffer_and_a_small_one_little() {
        let mut idle = Frames::new(65_535);
        assert_eq!(idle.buffer.capacity(), 0);
        assert_eq!(idle.space().len(), INITIAL);
        assert!(!idle.is_mid_message());
    }

    proptest! {
        #[test]
        fn no_stream_makes_it_panic_or_grow_beyond_the_limit(
            stream in proptest::collection::vec(any::<u8>(), 0..2_000), piece in 1usize..64, limit in 0usize..600
        ) {
            let _ = frames(limit, &stream, piece);
            let mut collector = Frames::new(limit);
            for chunk in stream.chunks(piece) {
                let space = collector.space();
                let count = space.len().min(chunk.len());
                space[..count].copy_from_slice(&chunk[..count]);
                collector.advance(count);
                prop_assert!(collector.buffer.len() <= limit.max(INITIAL));
                if collector.next().is_err() { break; }
            }
        }
    }
}
