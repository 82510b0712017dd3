//! A browser: reads the handshake's answer, then speaks RFC 6455 with tungstenite's client, which has nothing in common
//! with the engine's message machine; and writes odd bytes when a test wants them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::DEADLINE;

/// A stream of either kind that gives up at the deadline.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Stream::Unix(stream)
    }
}

impl Stream {
    fn with_deadline(self) -> Self {
        match &self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(DEADLINE)).unwrap(),
            Stream::Unix(stream) => stream.set_read_timeout(Some(DEADLINE)).unwrap(),
        }
        match &self {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(DEADLINE)).unwrap(),
            Stream::Unix(stream) => stream.set_write_timeout(Some(DEADLINE)).unwrap(),
        }
        self
    }

    /// Ends the connection.
    pub fn shutdown(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Says that nothing more is sent.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Dropping it resets the connection.
    pub fn reset_on_drop(&self) {
        match self {
            Stream::Tcp(stream) => wsredis::sys::reset_on_close(stream),
            Stream::Unix(stream) => wsredis::sys::reset_on_close(stream),
        }
    }

    pub fn set_nonblocking(&self, nonblocking: bool) {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking).unwrap(),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking).unwrap(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far a browser is.
enum State {
    /// The handshake's answer was not read yet.
    Waiting(Stream),
    Open(Box<WebSocket<Stream>>),
    /// For a moment, while it goes from one to the other.
    Between,
}

/// One browser.
pub struct Browser {
    state: State,
}

impl Browser {
    /// A browser whose request was sent.
    pub fn new(stream: impl Into<Stream>) -> Self {
        Browser { state: State::Waiting(stream.into().with_deadline()) }
    }

    /// Its connection, for odd bytes.
    pub fn stream(&mut self) -> &mut Stream {
        match &mut self.state {
            State::Waiting(stream) => stream,
            State::Open(socket) => socket.get_mut(),
            State::Between => unreachable!(),
        }
    }

    /// Takes the connection out; everything tungstenite had read is lost, so only before the first message.
    pub fn into_stream(self) -> Stream {
        match self.state {
            State::Waiting(stream) => stream,
            State::Open(socket) => socket.into_inner(),
            State::Between => unreachable!(),
        }
    }

    /// Reads the answer, which must be a 101. Returns its head.
    #[track_caller]
    pub fn opened(&mut self) -> String {
        let State::Waiting(mut stream) = std::mem::replace(&mut self.state, State::Between) else {
            panic!("it was opened before");
        };
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer) {
                Ok(0) => panic!("the end came inside the answer: {:?}", String::from_utf8(read)),
                Ok(n) => read.extend_from_slice(&buffer[..n]),
                Err(error) => panic!("no answer: {error}"),
            }
        };
        let behind = read.split_off(end);
        let answer = String::from_utf8(read).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let socket = WebSocket::from_partially_read(stream, behind, Role::Client, Some(config));
        self.state = State::Open(Box::new(socket));
        answer
    }

    /// Reads everything until the connection ends: for what is no handshake.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream().read_to_end(&mut bytes).expect("the connection ends in order");
        bytes
    }

    /// Is nothing there to be read just now? Only of use beside something that shows that time has passed.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let stream = self.stream();
        stream.set_nonblocking(true);
        let peeked = match stream {
            Stream::Tcp(stream) => stream.peek(&mut byte),
            Stream::Unix(_) => panic!("only TCP streams can be peeked at"),
        };
        self.stream().set_nonblocking(false);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn socket(&mut self) -> &mut WebSocket<Stream> {
        match &mut self.state {
            State::Open(socket) => socket,
            _ => panic!("the answer was not read"),
        }
    }

    /// The next message, of any kind, or how the connection failed.
    pub fn read(&mut self) -> Result<Message, Error> {
        self.socket().read()
    }

    /// The next message that is not a ping; tungstenite answers those.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        loop {
            match self.read() {
                Ok(Message::Ping(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("no message came: {error}"),
            }
        }
    }

    /// The next message, which must be text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// The next message, which must be binary.
    #[track_caller]
    pub fn binary(&mut self) -> Vec<u8> {
        match self.message() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("not binary but {other:?}"),
        }
    }

    /// The next message, which must be JSON text.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Reads the close frame, which must come next, answers it, sees the connection end and ends it too. Returns code
    /// and reason.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let frame = match self.message() {
            Message::Close(frame) => frame,
            other => panic!("not closed but {other:?}"),
        };
        match self.read() {
            Err(Error::ConnectionClosed) => {}
            other => panic!("the connection did not end after the close frame: {other:?}"),
        }
        self.stream().shutdown();
        match frame {
            Some(CloseFrame { code, reason }) => (code.into(), reason.as_str().to_owned()),
            None => (1005, String::new()),
        }
    }

    /// Sends text.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.socket().send(Message::text(text)).unwrap();
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket().send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// Sends a close frame.
    #[track_caller]
    pub fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket().close(Some(frame)).unwrap();
    }

    /// Writes bytes past tungstenite.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
    }
}

/// One whole masked frame of a browser, made by hand.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x1f, 0x2e, 0x3d, 0x4c];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    bytes
}

/// First bytes of whole frames.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
