//! The heads of requests and of answers (RFC 7541), each read or written as seldom as the table allows: what clients
//! and servers of gRPC say to each other is the same from the second time on.

use bytes::BufMut as _;
use loona_hpack::Decoder;

/// Numbers of the static table.
const AUTHORITY: u8 = 1;
const METHOD_POST: u8 = 3;
const PATH: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const CONTENT_TYPE: u8 = 31;
/// The newest field of the dynamic table.
const NEWEST: usize = 62;

const INDEXED: u8 = 0x80;
const KEPT: u8 = 0x40;

/// Different calls of one connection: their numbers must fit into a byte.
const CALLS_MAX: usize = 32;

/// What a request says besides its call.
const TE: &[u8] = b"\x02te\x08trailers";

/// Writes the heads of a connection's requests as other clients do: a field is spelled once and has a number from then
/// on.
pub(super) struct Requests {
    authority: String,
    /// The calls that have a number, the oldest first. The first of them comes with the other fields.
    calls: Vec<Known>,
}

struct Known {
    path: &'static str,
    /// The head, as long as no call is added.
    block: Vec<u8>,
}

impl Requests {
    pub(super) fn to(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            calls: Vec::new(),
        }
    }

    /// The head of a request.
    pub(super) fn write(
        &mut self,
        path: &'static str,
        to: impl FnOnce(&[u8]),
    ) -> anyhow::Result<()> {
        if let Some(known) = self.calls.iter().find(|known| known.path == path) {
            to(&known.block);
            return Ok(());
        }
        to(&self.spelled(path)?);
        self.calls.push(Known {
            path,
            block: Vec::new(),
        });
        self.number();
        Ok(())
    }

    /// With a path that the table has not.
    fn spelled(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        anyhow::ensure!(self.calls.len() < CALLS_MAX, "too many different calls");
        let mut block = vec![INDEXED | METHOD_POST, INDEXED | SCHEME_HTTP, KEPT | PATH];
        put_string(path, &mut block)?;
        if self.calls.is_empty() {
            block.push(KEPT | AUTHORITY);
            put_string(&self.authority, &mut block)?;
            block.push(KEPT | CONTENT_TYPE);
            put_string("application/grpc", &mut block)?;
            block.push(KEPT);
            block.put_slice(TE);
        } else {
            // The path that has just come is the newest of the table.
            block.extend(self.others(self.calls.len()));
        }
        Ok(block)
    }

    /// Authority, content type and `te` came after the first path; so many paths have come after them.
    fn others(&self, later: usize) -> [u8; 3] {
        [2, 1, 0].map(|behind| index(NEWEST + later + behind))
    }

    /// Writes all heads anew.
    fn number(&mut self) {
        let later = self.calls.len() - 1;
        let others = self.others(later);
        for (at, known) in self.calls.iter_mut().enumerate() {
            // The first has the three other fields behind it.
            let path = match at {
                0 => later + 3,
                _ => later - at,
            };
            known.block = vec![INDEXED | METHOD_POST, INDEXED | SCHEME_HTTP];
            known.block.push(index(NEWEST + path));
            known.block.extend(others);
        }
    }
}

fn index(number: usize) -> u8 {
    u8::try_from(number).map_or(INDEXED, |number| INDEXED | number)
}

fn put_string(string: &str, block: &mut Vec<u8>) -> anyhow::Result<()> {
    let length = u8::try_from(string.len())?;
    anyhow::ensure!(length < 127, "{string} is too long for a field");
    block.push(length);
    block.put_slice(string.as_bytes());
    Ok(())
}

/// What the head or the trailers of an answer say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing of how it went.
    Begun,
    /// `grpc-status: 0`.
    Well,
    /// Another status, or an answer that is not gRPC's.
    Failed(String),
}

/// Reads the heads of a connection's answers.
pub(super) struct Answers {
    table: Decoder<'static>,
    /// Blocks that name what the table has, and what they say as long as it does not change.
    known: Vec<(Box<[u8]>, Said)>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            table: Decoder::new(),
            known: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, block: &[u8]) -> anyhow::Result<Said> {
        if let Some((_, said)) = self.known.iter().find(|(known, _)| **known == *block) {
            return Ok(said.clone());
        }
        let said = self.decode(block)?;
        // One byte is a number below 127.
        match block.iter().all(|byte| (INDEXED..u8::MAX).contains(byte)) {
            true => self.known.push((block.into(), said.clone())),
            false => self.known.clear(),
        }
        Ok(said)
    }

    fn decode(&mut self, block: &[u8]) -> anyhow::Result<Said> {
        let (mut http, mut status, mut message) = (None, None, String::new());
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        self.table
            .decode_with_cb(block, |name, value| match &*name {
                b":status" => http = Some(text(&value)),
                b"grpc-status" => status = Some(text(&value)),
                b"grpc-message" => message = text(&value),
                _ => {}
            })
            .map_err(|error| anyhow::anyhow!("the head of an answer: {error:?}"))?;
        Ok(match (http.as_deref(), status.as_deref()) {
            (None | Some("200"), Some("0")) => Said::Well,
            (None | Some("200"), None) => Said::Begun,
            (None | Some("200"), Some(status)) => {
                Said::Failed(format!("status {status}, message {message:?}"))
            }
            (Some(http), _) => Said::Failed(format!("HTTP status {http}")),
        })
    }
}
