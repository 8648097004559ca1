//! Follows the frames of an HTTP/2 connection as far as the timeouts need: whether a request makes
//! progress, and whether a head has begun that does not end. hyper exposes nothing of this.

/// The length of the client connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// The length of a frame header (RFC 9113 §4.1).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Parses frame headers only. Invalid frames are left to hyper, which ends the connection.
#[derive(Debug)]
pub(super) struct FrameTracker {
    /// Bytes of the preface or of the current payload that have not come yet.
    skip: usize,
    head: [u8; FRAME_HEAD],
    filled: usize,
    /// Whether the current payload is the last of a head.
    ends_head: bool,
    head_open: bool,
}

impl FrameTracker {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE,
            head: [0; FRAME_HEAD],
            filled: 0,
            ends_head: false,
            head_open: false,
        }
    }

    /// Parses the next bytes and returns what was among them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> FrameEvents {
        let mut events = FrameEvents::default();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = bytes.split_at(step).1;
                events.ended |= self.after_payload();
                continue;
            }
            let step = (FRAME_HEAD - self.filled).min(bytes.len());
            let (now, later) = bytes.split_at(step);
            for (slot, byte) in self.head.iter_mut().skip(self.filled).zip(now) {
                *slot = *byte;
            }
            self.filled += step;
            bytes = later;
            // An incomplete frame header counts as an open head, whatever its type.
            self.head_open = true;
            if self.filled == FRAME_HEAD {
                events.progress |= self.frame();
                events.ended |= self.after_payload();
            }
        }
        events
    }

    /// Whether a head or a short frame has begun and not ended.
    pub(super) fn is_head_open(&self) -> bool {
        self.head_open
    }

    fn frame(&mut self) -> bool {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.filled = 0;
        let is_head = matches!(kind, HEADERS | CONTINUATION);
        // A body may come as slowly as its own timeout allows; everything else is short.
        self.head_open = kind != DATA;
        self.ends_head = !is_head || flags & END_HEADERS != 0;
        matches!(kind, DATA | HEADERS | WINDOW_UPDATE)
    }

    /// Whether a head or a short frame ended with this payload.
    fn after_payload(&mut self) -> bool {
        let ended = self.skip == 0 && self.filled == 0 && self.ends_head;
        self.head_open &= !ended;
        ended
    }
}

/// What the bytes of one read contained.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameEvents {
    /// A frame of a request.
    pub(super) progress: bool,
    /// The end of a head or a short frame: what is open afterwards began in these bytes.
    pub(super) ended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(0, usize::from(length)));
        bytes
    }

    fn started() -> FrameTracker {
        let mut frames = FrameTracker::new();
        assert!(!frames.feed(&[b'x'; PREFACE]).progress);
        frames
    }

    #[test]
    fn a_head_is_open_until_its_last_frame_has_come() {
        for size in [1, 2, 7, 64] {
            let mut frames = started();
            let mut feed = |bytes: Vec<u8>| {
                let moved: Vec<bool> = bytes
                    .chunks(size)
                    .map(|part| frames.feed(part).progress)
                    .collect();
                moved.contains(&true)
            };
            assert!(feed(frame(HEADERS, 0, 20)));
            feed(frame(CONTINUATION, 0, 5));
            let mut last = frame(CONTINUATION, END_HEADERS, 5);
            let end = last.pop().expect("payload");
            feed(last);
            assert!(frames.is_head_open());
            frames.feed(&[end]);
            assert!(!frames.is_head_open());
        }
    }

    #[test]
    fn a_body_may_come_slowly_and_a_ping_is_no_progress() {
        let mut frames = started();
        assert!(!frames.feed(&frame(0x6, 0, 8)).progress);
        assert!(!frames.is_head_open());
        let data = frame(DATA, 0, 100);
        assert!(frames.feed(&data[..50]).progress);
        assert!(!frames.is_head_open());
        frames.feed(&data[50..]);
        frames.feed(&frame(HEADERS, END_HEADERS, 0)[..4]);
        assert!(frames.is_head_open());
    }
}
