//! The least of HTTP/1.1 that a load needs: requests made before the clock starts, answers read as
//! far as their status and end.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stands where a request's own key is written when it is sent: 16 digits.
pub(super) const KEY: &str = "0000000000000000";

/// Requests, one behind the other in one piece of memory.
#[derive(Default)]
pub(super) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Requests {
    /// Adds a POST of JSON.
    pub(super) fn push(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        use std::io::Write as _;
        let bytes = &mut self.bytes;
        write!(bytes, "POST /api/v1/billing/{path} HTTP/1.1\r\nhost: bench\r\n").expect("it grows");
        for (name, value) in headers {
            write!(bytes, "{name}: {value}\r\n").expect("it grows");
        }
        let length = body.len();
        write!(bytes, "content-type: application/json\r\ncontent-length: {length}\r\n\r\n")
            .expect("it grows");
        bytes.extend_from_slice(body);
        self.ends.push(bytes.len());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The first one alone.
    pub(super) fn first(&self) -> Self {
        let first = self.get(0).to_vec();
        Self { ends: vec![first.len()], bytes: first }
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// Where an answer ends, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) body_at: usize,
    /// Where the answer ends.
    pub(super) end: usize,
}

impl Answer {
    /// Whether it is a 2xx.
    pub(super) fn is_good(self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Reads an answer; `None` while it has not ended. Only answers with a length are understood.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let malformed = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| malformed("a head of bytes"))?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| malformed("no status"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body_at = head_end + 4;
    let end = body_at + length.ok_or_else(|| malformed("no length"))?;
    Ok((bytes.len() >= end).then_some(Answer { status, body_at, end }))
}

/// A connection that is kept.
pub(super) struct Wire {
    stream: TcpStream,
    out: Vec<u8>,
    read: Vec<u8>,
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), read: Vec::with_capacity(4096) })
    }

    /// Sends a request, `key` in the place of [`KEY`] where it has one, and waits for its answer.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        key_at: Option<usize>,
        key: u64,
    ) -> io::Result<Answer> {
        use std::io::Write as _;
        self.out.clear();
        self.out.extend_from_slice(request);
        if let Some(key_at) = key_at {
            write!(&mut self.out[key_at..key_at + KEY.len()], "{key:016x}")?;
        }
        self.stream.write_all(&self.out).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = parse(&self.read)? {
                return Ok(answer);
            }
        }
    }

    /// The body of the answer that was read last.
    pub(super) fn body(&self, answer: Answer) -> &[u8] {
        &self.read[answer.body_at..answer.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says_however_it_is_cut() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-type: x\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "{cut}");
        }
        let answer = parse(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.end), (201, whole.len()));
        assert!(answer.is_good());
        assert_eq!(&whole[answer.body_at..answer.end], b"hello");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(parse(b"HTTP/1.1 2\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(!parse(b"HTTP/1.1 503 x\r\ncontent-length:0\r\n\r\n").unwrap().unwrap().is_good());
    }

    #[test]
    fn requests_lie_one_behind_the_other() {
        let mut requests = Requests::default();
        requests.push("a/", &[("idempotency-key", KEY)], b"{}");
        requests.push("b/", &[], b"[1]");
        assert_eq!(requests.len(), 2);
        assert!(requests.get(0).starts_with(b"POST /api/v1/billing/a/ HTTP/1.1\r\n"));
        assert!(requests.get(0).ends_with(b"content-length: 2\r\n\r\n{}"));
        assert!(requests.get(1).ends_with(b"\r\n\r\n[1]"));
    }
}
