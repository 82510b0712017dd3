//! One connection to Redis: commands out, replies in. Owned by whoever polls it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use wsredis::resp::{self, Decoder, Reply};

const MAX_REPLY: usize = 16 << 20;

/// The address in `redis://HOST:PORT`; passwords and databases are none of a test's.
pub fn address(url: &str) -> Result<SocketAddr, String> {
    let place = url.strip_prefix("redis://").unwrap_or(url).trim_end_matches('/');
    let found = place.to_socket_addrs().map_err(|error| format!("{url}: {error}"))?.next();
    found.ok_or_else(|| format!("{url} has no address"))
}

/// One connection.
pub struct Link {
    stream: TcpStream,
    decoder: Decoder,
    output: Vec<u8>,
    written: usize,
}

impl Link {
    /// Begins to connect.
    pub fn connect(address: SocketAddr, token: Token, registry: &Registry) -> io::Result<Link> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let _ = stream.set_nodelay(true);
        Ok(Link { stream, decoder: Decoder::new(MAX_REPLY), output: Vec::new(), written: 0 })
    }

    /// Queues a command; it goes with the next flush.
    pub fn command(&mut self, args: &[&[u8]]) {
        resp::command(&mut self.output, args);
    }

    /// How many bytes are still to be written.
    pub fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads everything that is there.
    pub fn read(&mut self, buffer: &mut [u8], each: &mut dyn FnMut(Reply<'_>)) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self
                    .decoder
                    .feed(&buffer[..count], each)
                    .map_err(|error| io::Error::other(error.to_string()))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The kernel says "not now": also while it still connects.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
