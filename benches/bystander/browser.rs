//! One websocket as a browser has it: the handshake, frames in both directions, the close.
//!
//! Owned by the harness, which polls it; it never blocks and never judges what it hears.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tungstenite::protocol::frame::FrameHeader;
use wsredis::ws::frame::{Control, Data, OpCode, unmask};

/// The code of a connection that ended without a close frame, RFC 6455 §7.4.1.
const NO_CLOSE: u16 = 1006;
const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;

/// Any key will do: nothing between us and the server reads the frames.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What comes of a browser.
pub enum Said<'a> {
    /// The handshake was answered with 101.
    Opened,
    /// It was answered with another status, or not at all (0). Nothing more comes.
    Refused(u16),
    /// A whole message.
    Message(&'a [u8]),
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

/// One connection.
pub struct Browser {
    stream: TcpStream,
    state: State,
    input: Vec<u8>,
    /// The fragments so far of a message that is not whole.
    message: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    ended: bool,
}

impl Browser {
    /// Begins a handshake for `path`.
    pub fn connect(
        address: SocketAddr,
        path: &str,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Browser> {
        let mut stream = TcpStream::connect(address)?;
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
        })
    }

    /// Sends a text message.
    pub fn say(&mut self, text: &[u8]) {
        self.queue(OpCode::Data(Data::Text), text);
        self.flush();
    }

    /// Begins the closing handshake; gives up at once what is not open.
    pub fn close(&mut self) {
        match self.state {
            State::Open => {
                self.queue(OpCode::Control(Control::Close), &NORMAL.to_be_bytes());
                self.state = State::Closing;
                self.flush();
            }
            State::Asking => self.state = State::Over,
            State::Closing | State::Over => {}
        }
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

    fn queue(&mut self, opcode: OpCode, payload: &[u8]) {
        let header = FrameHeader { is_final: true, opcode, mask: Some(MASK), ..Default::default() };
        header
            .format(payload.len() as u64, &mut self.output)
            .expect("writing to a Vec does not fail");
        let begin = self.output.len();
        self.output.extend_from_slice(payload);
        unmask(&mut self.output[begin..], MASK, 0);
    }

    /// Writes what the kernel takes; an error shows when it is read.
    pub fn flush(&mut self) {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
        self.output.clear();
        self.written = 0;
    }

    /// Reads everything that is there, `to_the_end` if the poll has told of one. `buffer` is lent
    /// for the call.
    pub fn read(&mut self, buffer: &mut [u8], to_the_end: bool, each: &mut dyn FnMut(Said<'_>)) {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return self.ended(each),
                Ok(count) => {
                    if self.state != State::Over {
                        self.input.extend_from_slice(&buffer[..count]);
                        self.understand(each);
                    }
                    // A short read has emptied the socket; the poll tells of what comes later, but
                    // not again of an end that has come with these bytes.
                    if count < buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.ended(each),
            }
        }
        self.flush();
    }

    fn ended(&mut self, each: &mut dyn FnMut(Said<'_>)) {
        self.ended = true;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Asking => each(Said::Refused(0)),
            State::Open => each(Said::Closed(NO_CLOSE)),
            State::Closing | State::Over => {}
        }
    }

    fn understand(&mut self, each: &mut dyn FnMut(Said<'_>)) {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        if self.state == State::Asking {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut answer = httparse::Response::new(&mut headers);
            match answer.parse(&input) {
                Ok(httparse::Status::Complete(head)) if answer.code == Some(101) => {
                    at = head;
                    self.state = State::Open;
                    each(Said::Opened);
                }
                Ok(httparse::Status::Partial) => {}
                _ => {
                    self.state = State::Over;
                    each(Said::Refused(answer.code.unwrap_or(0)));
                }
            }
        }
        while matches!(self.state, State::Open | State::Closing) {
            match self.frame(&input[at..], each) {
                Some(size) => at += size,
                None => break,
            }
        }
        input.drain(..at);
        self.input = input;
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
            _ if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 => {
                self.over(PROTOCOL, each);
            }
            OpCode::Data(_) if header.is_final && self.message.is_empty() => {
                each(Said::Message(payload));
            }
            OpCode::Data(_) => {
                self.message.extend_from_slice(payload);
                if header.is_final {
                    each(Said::Message(&std::mem::take(&mut self.message)));
                }
            }
            OpCode::Control(Control::Ping) => {
                self.queue(OpCode::Control(Control::Pong), payload);
            }
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                if self.state == State::Open {
                    self.queue(OpCode::Control(Control::Close), payload.get(..2).unwrap_or(&[]));
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
