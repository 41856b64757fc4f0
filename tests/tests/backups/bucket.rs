//! A bucket of something that speaks S3, in the test's process: as much of the protocol as backups use. Every
//! request has to be signed by the one key that it knows; what the signature is it does not check.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// The key that requests have to be signed with.
pub(crate) const ACCESS_KEY: &str = "backup-key";
const NAME: &str = "backups";

/// A bucket. Ends with the test's runtime.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub endpoint: String,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    objects: BTreeMap<String, Bytes>,
    /// By upload, by number.
    parts: BTreeMap<String, BTreeMap<u32, Bytes>>,
    /// Uploads in parts that were finished.
    joined: usize,
}

impl Bucket {
    pub(crate) async fn start() -> Result<Bucket> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bucket = Bucket {
            endpoint: format!("http://{}", listener.local_addr()?),
            held: Arc::default(),
        };
        let served = bucket.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| served.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    // A client that leaves is no failure.
                    http.serve_connection(TokioIo::new(stream), answer)
                        .await
                        .ok();
                });
            }
        });
        Ok(bucket)
    }

    /// The names in a folder.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let held = self.held.lock();
        let inside = held
            .objects
            .keys()
            .filter_map(|key| key.strip_prefix(folder));
        inside
            .map(|name| name.trim_matches('/').to_owned())
            .collect()
    }

    pub(crate) fn put(&self, name: &str, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        self.held.lock().objects.insert(name.to_owned(), bytes);
    }

    /// Uploads in parts that were finished.
    pub(crate) fn joined(&self) -> usize {
        self.held.lock().joined
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let signed = head.headers.get("authorization").is_some_and(|signed| {
            let signed = String::from_utf8_lossy(signed.as_bytes()).into_owned();
            let begin = format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/");
            signed.starts_with(&begin) && signed.contains("Signature=")
        });
        let Ok(body) = body.collect().await else {
            return Ok(status(StatusCode::BAD_REQUEST));
        };
        let path = head.uri.path().trim_start_matches('/');
        let query = head.uri.query().unwrap_or_default();
        let Some(key) = path.strip_prefix(NAME).filter(|_| signed) else {
            return Ok(status(StatusCode::FORBIDDEN));
        };
        let key = decode(key.trim_start_matches('/'));
        Ok(self
            .held
            .lock()
            .answer(&head.method, &key, query, body.to_bytes()))
    }
}

impl Held {
    fn answer(
        &mut self,
        method: &Method,
        key: &str,
        query: &str,
        body: Bytes,
    ) -> Response<Full<Bytes>> {
        let upload = value(query, "uploadId");
        match (method.as_str(), upload) {
            ("GET", None) if key.is_empty() => {
                self.list(&value(query, "prefix").unwrap_or_default())
            }
            ("GET", None) => match self.objects.get(key) {
                Some(bytes) => object(bytes.clone()),
                None => status(StatusCode::NOT_FOUND),
            },
            ("PUT", None) => {
                self.objects.insert(key.to_owned(), body);
                object(Bytes::new())
            }
            ("PUT", Some(upload)) => {
                let number = value(query, "partNumber").and_then(|number| number.parse().ok());
                let parts = self.parts.entry(upload).or_default();
                parts.insert(number.unwrap_or_default(), body);
                object(Bytes::new())
            }
            ("POST", None) if query.contains("uploads") => {
                let upload = format!("upload{}", self.parts.len());
                self.parts.insert(upload.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><Bucket>{NAME}</Bucket><Key>{key}</Key>\
                     <UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("POST", Some(upload)) => {
                let parts = self.parts.remove(&upload).unwrap_or_default();
                let whole: Vec<u8> = parts.into_values().flatten().collect();
                self.objects.insert(key.to_owned(), whole.into());
                self.joined += 1;
                xml("<CompleteMultipartUploadResult><ETag>\"1\"</ETag>\
                     </CompleteMultipartUploadResult>"
                    .to_owned())
            }
            ("POST", None) if query.contains("delete") => self.delete(&body),
            ("DELETE", None) => {
                self.objects.remove(key);
                status(StatusCode::NO_CONTENT)
            }
            _ => status(StatusCode::NOT_IMPLEMENTED),
        }
    }

    fn list(&self, prefix: &str) -> Response<Full<Bytes>> {
        let inside = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        let contents: String = inside
            .map(|(key, bytes)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                    bytes.len()
                )
            })
            .collect();
        xml(format!(
            "<ListBucketResult><Name>{NAME}</Name><IsTruncated>false</IsTruncated>{contents}\
             </ListBucketResult>"
        ))
    }

    fn delete(&mut self, body: &[u8]) -> Response<Full<Bytes>> {
        let text = String::from_utf8_lossy(body).into_owned();
        let mut deleted = String::new();
        for piece in text.split("<Key>").skip(1) {
            let key = piece.split("</Key>").next().unwrap_or_default();
            self.objects.remove(key);
            deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        xml(format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}

fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value))
}

/// Percent signs, of which names here have few.
fn decode(text: &str) -> String {
    text.replace("%2F", "/").replace("%3D", "=")
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn object(bytes: Bytes) -> Response<Full<Bytes>> {
    Response::builder()
        .header("etag", "\"1\"")
        .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        .body(Full::new(bytes))
        .expect("constant headers are valid")
}

fn xml(text: String) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(text)))
}
