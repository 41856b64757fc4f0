//! HTTP/1.1 without manners: requests that no library would send, and answers that it would hide.

use anyhow::{Context as _, Result, ensure};
use testkit::patience::patience;
use tokio::io::BufReader;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request as it is written.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `GET`, `POST`, or what nobody has heard of.
    pub method: &'static str,
    /// With its query.
    pub path: String,
    /// Beside `Host`, `Connection` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &'static str, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// `GET`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// `POST` with a body.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::new("POST", path)
        }
    }

    /// The same with another header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn wire(&self) -> Vec<u8> {
        let Self { method, path, .. } = self;
        let length = self.body.len();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n"
        );
        let has_host = self.headers.iter().any(|(name, _)| *name == "Host");
        if !has_host {
            head.push_str("Host: 127.0.0.1\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Told {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks.
    pub body: String,
}

impl Told {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Asks, and reads the whole answer.
///
/// # Errors
/// When nobody listens, or what comes is not HTTP.
pub async fn ask(port: u16, request: &Ask) -> Result<Told> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    ask_on(stream, request).await
}

/// The same on a connection that is there.
///
/// # Errors
/// When what comes is not HTTP.
pub async fn ask_on<S>(stream: S, request: &Ask) -> Result<Told>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut answer = open_on(stream, request).await?;
    let mut body = String::new();
    while let Some(piece) = answer.piece().await? {
        body.push_str(&piece);
    }
    Ok(Told {
        body,
        ..answer.told
    })
}

/// Asks, and reads the head only.
///
/// # Errors
/// When nobody listens, or what comes is not HTTP.
pub async fn open(port: u16, request: &Ask) -> Result<Open<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    open_on(stream, request).await
}

async fn open_on<S>(mut stream: S, request: &Ask) -> Result<Open<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&request.wire()).await?;
    let mut stream = BufReader::new(stream);
    let told = timeout(patience(), head(&mut stream)).await??;
    let body = match (
        request.method,
        told.header("transfer-encoding"),
        told.header("content-length"),
    ) {
        ("HEAD", _, _) => Body::Rest(Some(0)),
        (_, Some("chunked"), _) => Body::Chunks,
        (_, _, Some(length)) => Body::Rest(Some(length.parse()?)),
        _ => Body::Rest(None),
    };
    Ok(Open { stream, told, body })
}

enum Body {
    Chunks,
    /// So many bytes, or until the end.
    Rest(Option<usize>),
    Ended,
}

/// An answer whose body is still to be read.
pub struct Open<S> {
    stream: BufReader<S>,
    /// Its head.
    pub told: Told,
    body: Body,
}

impl<S: AsyncRead + Unpin> Open<S> {
    /// The next piece of the body.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn piece(&mut self) -> Result<Option<String>> {
        timeout(patience(), self.read_piece())
            .await
            .context("no more of the body")?
    }

    async fn read_piece(&mut self) -> Result<Option<String>> {
        let bytes = match self.body {
            Body::Ended => return Ok(None),
            Body::Rest(length) => {
                self.body = Body::Ended;
                let mut bytes = Vec::new();
                match length {
                    Some(length) => {
                        bytes.resize(length, 0);
                        self.stream.read_exact(&mut bytes).await?;
                    }
                    None => {
                        self.stream.read_to_end(&mut bytes).await?;
                    }
                }
                bytes
            }
            Body::Chunks => {
                let size = line(&mut self.stream).await?;
                let mut bytes = vec![0; usize::from_str_radix(&size, 16)?];
                self.stream.read_exact(&mut bytes).await?;
                line(&mut self.stream).await?;
                if bytes.is_empty() {
                    self.body = Body::Ended;
                    return Ok(None);
                }
                bytes
            }
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

async fn head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Result<Told> {
    let first = line(stream).await?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut headers = Vec::new();
    loop {
        let header = line(stream).await?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").context("no header")?;
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Ok(Told {
        status: status.with_context(|| format!("no status in {first:?}"))?,
        headers,
        body: String::new(),
    })
}

async fn line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(
        line.ends_with("\r\n"),
        "the connection ended within {line:?}"
    );
    Ok(line.trim_end_matches("\r\n").to_owned())
}
