//! One websocket as a browser has it: the handshake, frames in both directions, the close.
//!
//! Owned by whoever polls it; it never blocks and never judges what it hears. Whole frames are
//! taken where they were read to; only what is cut is copied.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tungstenite::protocol::frame::FrameHeader;
use wsredis::sys::reset_on_close;
use wsredis::ws::frame::{Control, Data, OpCode, unmask};

/// The code of a connection that ended without a close frame, RFC 6455 §7.4.1.
const NO_CLOSE: u16 = 1006;
const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;

/// Any key will do: nothing between us and the server reads the frames.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What was written is thrown away when it is as much as this, although more waits.
const KEPT: usize = 64 << 10;

/// What comes of a browser.
pub enum Said<'a> {
    /// The handshake was answered with 101.
    Opened,
    /// It was answered with another status, or not at all (0). Nothing more comes.
    Refused(u16),
    /// A whole message.
    Message(&'a [u8]),
    /// A whole message, compressed, to whom has offered that.
    Deflated(&'a [u8]),
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// The other side has closed with this code. Nothing more comes.
    Closed(u16),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    Open,
    /// We have sent the first close frame.
    Closing,
    Over,
}

/// What came of reading once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// The buffer is full; there may be more.
    Full,
    /// The kernel had no more than this.
    Short,
    /// It had nothing.
    Empty,
    /// The connection has ended.
    Ended,
}

/// One connection.
pub struct Browser {
    stream: TcpStream,
    state: State,
    /// A frame, or an answer, that is not whole yet.
    input: Vec<u8>,
    /// The fragments so far of a message that is not whole.
    message: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    ended: bool,
    /// Bytes of the handshake's request that are written.
    ask_limit: usize,
    /// Bytes that came although nothing was to come any more.
    beyond: usize,
    /// Whether permessage-deflate was offered.
    deflates: bool,
}

impl Browser {
    /// Begins a handshake for `path`.
    pub fn connect(
        address: SocketAddr,
        path: &str,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Browser> {
        Browser::ask(TcpStream::connect(address)?, address, path, token, registry)
    }

    /// Begins a handshake for `path` over a connection that was begun to `address`.
    pub fn ask(
        mut stream: TcpStream,
        address: SocketAddr,
        path: &str,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Browser> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let _ = stream.set_nodelay(true);
        let output = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        );
        Ok(Browser {
            stream,
            state: State::Asking,
            input: Vec::new(),
            message: Vec::new(),
            output: output.into_bytes(),
            written: 0,
            ended: false,
            ask_limit: usize::MAX,
            beyond: 0,
            deflates: false,
        })
    }

    /// Offers permessage-deflate, without a context that is taken over. To be called at once.
    pub fn offer_deflate(&mut self) {
        self.deflates = true;
        self.output.truncate(self.output.len() - 2);
        self.output.extend_from_slice(
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\r\n",
        );
    }

    /// Sends a text message.
    pub fn say(&mut self, text: &[u8]) {
        self.queue(OpCode::Data(Data::Text), true, text);
        self.flush();
    }

    /// Queues a frame; it goes with the next flush.
    pub fn queue(&mut self, opcode: OpCode, is_final: bool, payload: &[u8]) {
        let header = FrameHeader { is_final, opcode, mask: Some(MASK), ..Default::default() };
        header
            .format(payload.len() as u64, &mut self.output)
            .expect("writing to a Vec does not fail");
        let begin = self.output.len();
        self.output.extend_from_slice(payload);
        unmask(&mut self.output[begin..], MASK, 0);
    }

    /// What is to be written, for those who send what is no frame.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// How many bytes are still to be written.
    pub fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    /// How many bytes of these were written already.
    pub fn written(&self) -> usize {
        self.written
    }

    /// How many bytes came behind the close frame.
    pub fn beyond(&self) -> usize {
        self.beyond
    }

    /// Begins the closing handshake; gives up at once what is not open.
    pub fn close(&mut self) {
        match self.state {
            State::Open => {
                self.queue(OpCode::Control(Control::Close), true, &NORMAL.to_be_bytes());
                self.state = State::Closing;
                self.flush();
            }
            State::Asking => self.state = State::Over,
            State::Closing | State::Over => {}
        }
    }

    /// Whether messages may flow.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing more is to be expected of it.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the other side has ended the connection, so that we should too.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Ends the connection.
    pub fn drop_from(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }

    /// Cuts the connection: the other side is told by a reset, not by an end in order.
    pub fn reset(self, registry: &Registry) {
        reset_on_close(&self.stream);
        self.drop_from(registry);
    }

    /// Writes what the kernel takes; an error shows when it is read.
    pub fn flush(&mut self) {
        self.flush_at_most(match self.state {
            State::Asking => self.ask_limit.saturating_sub(self.written),
            _ => usize::MAX,
        });
    }

    /// Lets only so many bytes of the handshake's request be written.
    pub fn ask_at_most(&mut self, limit: usize) {
        self.ask_limit = limit;
    }

    /// Writes what the kernel takes, `limit` bytes at most.
    pub fn flush_at_most(&mut self, limit: usize) {
        let end = self.output.len().min(self.written.saturating_add(limit));
        while self.written < end {
            match self.stream.write(&self.output[self.written..end]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written >= KEPT {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Reads everything that is there, `to_the_end` if the poll has told of one. `buffer` is lent
    /// for the call.
    pub fn read(&mut self, buffer: &mut [u8], to_the_end: bool, each: &mut dyn FnMut(Said<'_>)) {
        loop {
            match self.read_once(buffer, each) {
                // A short read has emptied the socket; the poll tells of what comes later, but not
                // again of an end that has come with these bytes.
                Portion::Short if !to_the_end => break,
                Portion::Full | Portion::Short => {}
                Portion::Empty => break,
                Portion::Ended => return,
            }
        }
        self.flush();
    }

    /// Reads as much as the buffer holds.
    pub fn read_once(&mut self, buffer: &mut [u8], each: &mut dyn FnMut(Said<'_>)) -> Portion {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.take(&buffer[..count], each);
                    let is_full = count == buffer.len();
                    return if is_full { Portion::Full } else { Portion::Short };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Portion::Empty,
                Err(_) => break,
            }
        }
        self.ended(each);
        Portion::Ended
    }

    fn ended(&mut self, each: &mut dyn FnMut(Said<'_>)) {
        self.ended = true;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Asking => each(Said::Refused(0)),
            State::Open => each(Said::Closed(NO_CLOSE)),
            State::Closing | State::Over => {}
        }
    }

    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(Said<'_>)) {
        if self.state == State::Over {
            self.beyond += bytes.len();
        } else if self.input.is_empty() {
            let taken = self.understand(bytes, each);
            self.input.extend_from_slice(&bytes[taken..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let taken = self.understand(&input, each);
            input.drain(..taken);
            self.input = input;
        }
    }

    /// Takes what is whole at the beginning of `input`; returns the size of it.
    fn understand(&mut self, input: &[u8], each: &mut dyn FnMut(Said<'_>)) -> usize {
        let mut at = 0;
        if self.state == State::Asking {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut answer = httparse::Response::new(&mut headers);
            match answer.parse(input) {
                Ok(httparse::Status::Complete(head)) if answer.code == Some(101) => {
                    at = head;
                    self.state = State::Open;
                    each(Said::Opened);
                }
                Ok(httparse::Status::Partial) => {}
                _ => {
                    self.state = State::Over;
                    each(Said::Refused(answer.code.unwrap_or(0)));
                    return input.len();
                }
            }
        }
        while matches!(self.state, State::Open | State::Closing) {
            match self.frame(&input[at..], each) {
                Some(size) => at += size,
                None => break,
            }
        }
        if self.state == State::Over {
            self.beyond += input.len() - at;
            return input.len();
        }
        at
    }

    /// Takes the frame at the beginning of `bytes`; its size, or nothing if it is not whole.
    fn frame(&mut self, bytes: &[u8], each: &mut dyn FnMut(Said<'_>)) -> Option<usize> {
        let mut cursor = Cursor::new(bytes);
        let (header, len) = match FrameHeader::parse(&mut cursor) {
            Ok(found) => found?,
            Err(_) => {
                self.over(PROTOCOL, each);
                return None;
            }
        };
        let begin = cursor.position() as usize;
        let end = begin.checked_add(usize::try_from(len).ok()?)?;
        let payload = bytes.get(begin..end)?;
        match header.opcode {
            OpCode::Data(_) if header.rsv1 && header.is_final && self.deflates => {
                each(Said::Deflated(payload));
            }
            _ if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 => {
                self.over(PROTOCOL, each);
            }
            OpCode::Data(_) if header.is_final && self.message.is_empty() => {
                each(Said::Message(payload));
            }
            OpCode::Data(_) => {
                self.message.extend_from_slice(payload);
                if header.is_final {
                    each(Said::Message(&self.message));
                    self.message.clear();
                }
            }
            OpCode::Control(Control::Ping) => {
                self.queue(OpCode::Control(Control::Pong), true, payload);
            }
            OpCode::Control(Control::Pong) => each(Said::Pong(payload)),
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                if self.state == State::Open {
                    let code = payload.get(..2).unwrap_or(&[]);
                    self.queue(OpCode::Control(Control::Close), true, code);
                    self.flush();
                }
                self.over(code, each);
            }
            OpCode::Control(_) => {}
        }
        Some(end)
    }

    /// The other side has ended it; no news if we had asked for that.
    fn over(&mut self, code: u16, each: &mut dyn FnMut(Said<'_>)) {
        if std::mem::replace(&mut self.state, State::Over) == State::Open {
            each(Said::Closed(code));
        }
    }
}
