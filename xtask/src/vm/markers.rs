//! Messages of the guest's init in the stream of its command's output.
//!
//! A message is `RS NONCE WORD NUMBER LF`. The nonce is new for each machine,
//! so that no command's output is taken for a message.

/// ASCII's record separator, which text does not have.
const START: u8 = 0x1e;

/// What init says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The command is about to start.
    Boot,
    /// The command ended with this exit status.
    Exit(i32),
}

/// Takes messages out of a stream that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Markers {
    nonce: String,
    /// The start of what may be a message.
    held: Vec<u8>,
}

impl Markers {
    pub(crate) fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            held: Vec::new(),
        }
    }

    /// The output in the stream up to the end of `bytes`, and the messages.
    /// What may turn out to be a message is held back for the next call.
    pub(crate) fn split(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<Marker>) {
        let mut output = Vec::new();
        let mut markers = Vec::new();
        for &byte in bytes {
            if byte == START || !self.may_be_message() {
                output.append(&mut self.held);
            }
            if byte != START && self.held.is_empty() {
                output.push(byte);
                continue;
            }
            self.held.push(byte);
            if byte == b'\n'
                && let Some(marker) = self.message()
            {
                markers.push(marker);
                self.held.clear();
            }
        }
        if !self.may_be_message() {
            output.append(&mut self.held);
        }
        (output, markers)
    }

    fn prefix(&self) -> Vec<u8> {
        [&[START], self.nonce.as_bytes(), b" "].concat()
    }

    /// Whether more bytes could make what is held a message.
    fn may_be_message(&self) -> bool {
        let prefix = self.prefix();
        let common = prefix.len().min(self.held.len());
        self.held[..common] == prefix[..common] && !self.held.ends_with(b"\n")
    }

    fn message(&self) -> Option<Marker> {
        let body = self.held.strip_prefix(self.prefix().as_slice())?;
        let body = std::str::from_utf8(body).ok()?.trim_end();
        let (word, number) = body.split_once(' ')?;
        match word {
            "boot" => Some(Marker::Boot),
            "exit" => Some(Marker::Exit(number.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `stream` handed over in pieces of `size`.
    fn split(stream: &[u8], size: usize) -> (Vec<u8>, Vec<Marker>) {
        let mut markers = Markers::new("n7");
        let mut all = (Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            let (output, seen) = markers.split(piece);
            all.0.extend(output);
            all.1.extend(seen);
        }
        all
    }

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let stream = b"early\n\x1en7 boot 0\nno newline\x1en7 exit 41\n";
        for size in 1..=stream.len() {
            let (output, markers) = split(stream, size);
            assert_eq!(output, b"early\nno newline");
            assert_eq!(markers, [Marker::Boot, Marker::Exit(41)]);
        }
    }

    #[test]
    fn what_a_command_prints_is_no_message() {
        for stream in [
            &b"\x1e\x1en8 exit 0\n\x1e"[..3],
            b"\x1en8 exit 0\nx",
            b"\x1en7 exit x\ny",
            b"n7 exit 0\n",
            b"\x1e\x1e\x1e0",
        ] {
            for size in 1..=stream.len() {
                let (output, markers) = split(&[stream, b"\x1en7 exit 3\n"].concat(), size);
                assert_eq!(output, stream, "{size}");
                assert_eq!(markers, [Marker::Exit(3)]);
            }
        }
    }
}
