//! A call of any method of one server, as gRPC or through the JSON gateway: either way a message goes and
//! one comes back, or an error with its code and its text.

use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail, ensure};
use api::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde_json::Value;
use testkit::Server;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(api::FILE_DESCRIPTOR_SET).expect("the descriptors are our own")
});

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// gRPC.
    Grpc,
    /// JSON over HTTP.
    Json,
}

/// A method: its path as gRPC, and that of the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method(pub(super) &'static str, pub(super) &'static str);

/// What came of a call: all that has to be the same on both servers.
pub(super) type Outcome<R> = Result<R, String>;

/// Asks one server on behalf of one user, over a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    connection: Connection,
    token: Option<String>,
}

#[derive(Debug, Clone)]
enum Connection {
    Grpc(Channel),
    Json { http: reqwest::Client, url: String },
}

impl Caller {
    pub(super) async fn connect(server: &Server, wire: Wire) -> Result<Caller> {
        let url = server.client_url();
        let connection = match wire {
            Wire::Grpc => {
                let endpoint = Channel::from_shared(url)?.tcp_nodelay(true);
                Connection::Grpc(endpoint.connect().await?)
            }
            Wire::Json => Connection::Json {
                http: reqwest::Client::builder().no_proxy().build()?,
                url,
            },
        };
        Ok(Caller {
            connection,
            token: None,
        })
    }

    /// From now on as this user.
    pub(super) async fn log_in(&mut self, name: &str, password: &str) -> Result<()> {
        const AUTHENTICATE: Method =
            Method("/etcdserverpb.Auth/Authenticate", "/v3/auth/authenticate");
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let answer: Outcome<pb::AuthenticateResponse> = self.call(AUTHENTICATE, &request).await?;
        self.token = Some(answer.map_err(anyhow::Error::msg)?.token);
        Ok(())
    }

    /// Calls a method, and takes its first answer if it gives several.
    pub(super) async fn call<Q, R>(&self, method: Method, request: &Q) -> Result<Outcome<R>>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        match &self.connection {
            Connection::Grpc(channel) => Ok(self
                .call_grpc(channel, method, request)
                .await
                .map_err(|status| described(status.code(), status.message()))),
            Connection::Json { .. } => self.call_json(method, request).await,
        }
    }

    async fn call_grpc<Q, R>(
        &self,
        channel: &Channel,
        method: Method,
        request: &Q,
    ) -> Result<R, Status>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc = grpc.max_decoding_message_size(usize::MAX);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unknown(format!("not connected: {error}")))?;
        let codec = tonic_prost::ProstCodec::<Q, R>::default();
        let path = PathAndQuery::from_static(method.0);
        if !descriptor(method.0).is_server_streaming() {
            let request = self.with_token(Request::new(request.clone()));
            return Ok(grpc.unary(request, path, codec).await?.into_inner());
        }
        let requests = tokio_stream::once(request.clone());
        let request = self.with_token(Request::new(requests));
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        let first = answers.message().await?;
        first.ok_or_else(|| Status::unknown("the stream ended without an answer"))
    }

    fn with_token<T>(&self, mut request: Request<T>) -> Request<T> {
        if let Some(token) = &self.token {
            let token = token.parse().expect("a token is ASCII");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    async fn call_json<Q, R>(&self, method: Method, request: &Q) -> Result<Outcome<R>>
    where
        Q: Message,
        R: Message + Default,
    {
        let mut lines = self.post(method, request).await?;
        let status = lines.response.status();
        let text = match descriptor(method.0).is_server_streaming() {
            true => lines.next().await?,
            false => lines.all().await?,
        };
        let answer: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&text)))?;
        let answer = answer.get("result").unwrap_or(&answer);
        let error = answer.get("error").filter(|error| error.is_object());
        let error = error.unwrap_or(answer);
        if let Some(code) = error.get("code").and_then(Value::as_i64) {
            let code = Code::from(i32::try_from(code)?);
            let text = error.get("message").and_then(Value::as_str);
            // With the status that belongs to the code: both have to be the same.
            let error = described(code, text.unwrap_or_default());
            return Ok(Err(format!("{status} {error}")));
        }
        ensure!(status.is_success(), "{status}: {answer}");
        Ok(Ok(from_json(descriptor(method.0).output(), answer)?))
    }

    async fn post(&self, method: Method, request: &impl Message) -> Result<Lines> {
        let Connection::Json { http, url } = &self.connection else {
            bail!("not over HTTP");
        };
        let body = to_json(descriptor(method.0).input(), request)?;
        let mut post = http.post(format!("{url}{}", method.1)).body(body);
        if let Some(token) = &self.token {
            post = post.header("Authorization", token);
        }
        Ok(Lines {
            response: post.send().await?,
            read: Vec::new(),
        })
    }

    /// Opens a stream with one watcher on it.
    pub(super) async fn watch(&self, create: pb::WatchCreateRequest) -> Result<Watch> {
        const WATCH: Method = Method("/etcdserverpb.Watch/Watch", "/v3/watch");
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        match &self.connection {
            Connection::Grpc(channel) => {
                let requests = tokio_stream::once(request);
                // Once more, and never again: the stream stays open.
                let requests =
                    futures_util::StreamExt::chain(requests, futures_util::stream::pending());
                let request = self.with_token(Request::new(requests));
                let mut client = pb::watch_client::WatchClient::new(channel.clone())
                    .max_decoding_message_size(usize::MAX);
                Ok(Watch::Grpc(client.watch(request).await?.into_inner()))
            }
            Connection::Json { .. } => Ok(Watch::Json(self.post(WATCH, &request).await?)),
        }
    }
}

/// The responses of a watch stream.
pub(super) enum Watch {
    Grpc(Streaming<pb::WatchResponse>),
    Json(Lines),
}

impl Watch {
    pub(super) async fn next(&mut self) -> Result<pb::WatchResponse> {
        match self {
            Watch::Grpc(stream) => stream.message().await?.context("the stream has ended"),
            Watch::Json(lines) => {
                let line = lines.next().await?;
                let line: Value = serde_json::from_slice(&line)?;
                let result = line.get("result").with_context(|| format!("{line}"))?;
                from_json(descriptor("/etcdserverpb.Watch/Watch").output(), result)
            }
        }
    }
}

/// The lines of a response, as they come.
pub(super) struct Lines {
    response: reqwest::Response,
    read: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                return Ok(self.read.drain(..=end).collect());
            }
            match self.response.chunk().await? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                // An error at once has no end of line.
                None if self.read.is_empty() => bail!("the response has ended"),
                None => return Ok(std::mem::take(&mut self.read)),
            }
        }
    }

    async fn all(mut self) -> Result<Vec<u8>> {
        while let Some(chunk) = self.response.chunk().await? {
            self.read.extend_from_slice(&chunk);
        }
        Ok(self.read)
    }
}

fn described(code: Code, text: &str) -> String {
    format!("{code:?}: {text}")
}

fn descriptor(path: &str) -> MethodDescriptor {
    let mut parts = path.trim_start_matches('/').split('/');
    let (service, method) = (parts.next(), parts.next());
    let service = service.and_then(|service| POOL.get_service_by_name(service));
    let mut methods = service.iter().flat_map(|service| service.methods());
    let found = methods.find(|it| Some(it.name()) == method);
    found.expect("the tests call methods that there are")
}

fn to_json(descriptor: MessageDescriptor, message: &impl Message) -> Result<Vec<u8>> {
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let mut json = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)?;
    Ok(json)
}

fn from_json<M: Message + Default>(descriptor: MessageDescriptor, json: &Value) -> Result<M> {
    let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, json, &options)
        .with_context(|| format!("{json}"))?;
    Ok(M::decode(message.encode_to_vec().as_slice())?)
}
