//! Connections whose clients do not keep to the rules: frame by frame, and what each brings (RFC 9113).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::{frame, options};
use crate::{Connection, Error, Options, RequestBody};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// GET http://host/, which is answered; a POST is not.
const GET: &[u8] = b"\x82\x86\x84\x41\x04host";
const POST: &[u8] = b"\x83\x86\x84\x41\x04host";
const LAST_PINGS: [&[u8; 8]; 2] = [b"lastping", b"and last"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// What becomes of what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The connection ends, with this reason.
    Goaway(u32),
    /// The stream ends, with this reason, and the connection goes on.
    Reset(u32, u32),
    /// The stream's answer has come.
    Answered(u32),
    /// Nothing is said to it.
    Nothing,
}
use Outcome::{Answered, Goaway, Nothing, Reset};

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
}

fn post(stream: u32, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[POST, more].concat())
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    let setting = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &setting)
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

type Reply = Result<Response<Full<Bytes>>, Infallible>;

fn answer(request: Request<RequestBody>) -> Pin<Box<impl Future<Output = Reply>>> {
    Box::pin(answered(request))
}

async fn answered(request: Request<RequestBody>) -> Reply {
    if request.method() == http::Method::GET {
        return Ok(Response::new(Full::from("answer")));
    }
    // The body is kept, and not read.
    let _request = request;
    std::future::pending().await
}

/// Everything that the server says to these bytes, until it closes or has answered what it can: it answers pings
/// when it reads them, and what it read with a ping before it reads the next.
async fn said_to(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<Frame> {
    let (client, server) = tokio::io::duplex(1024);
    let (mut reader, mut writer) = tokio::io::split(client);
    let serving = tokio::spawn(Connection::new(server, BytesMut::new(), &options(), answer));
    let pieces: Vec<Vec<u8>> = pieces.into_iter().collect();
    let (ask_again, again) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn(async move {
        // The server may close: its right.
        for piece in pieces.into_iter().chain([frame(PING, 0, 0, LAST_PINGS[0])]) {
            writer.write_all(&piece).await.ok();
        }
        if again.await.is_ok() {
            let ping = frame(PING, 0, 0, LAST_PINGS[1]);
            writer.write_all(&ping).await.ok();
        }
        writer
    });
    let (mut said, mut ask_again) = (Vec::new(), Some(ask_again));
    while let Some(frame) = read_frame(&mut reader).await {
        let is_answer = |ping: &[u8; 8]| (frame.kind, &frame.payload[..]) == (PING, &ping[..]);
        let (is_first, is_end) = (is_answer(LAST_PINGS[0]), is_answer(LAST_PINGS[1]));
        said.push(frame);
        if is_first && let Some(ask) = ask_again.take() {
            ask.send(()).unwrap();
        }
        if is_end {
            break;
        }
    }
    drop((reader, ask_again));
    drop(writing.await.unwrap());
    drop(serving.await.unwrap());
    said
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
    reader.read_exact(&mut payload).await.unwrap();
    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
    Some(Frame {
        kind,
        flags,
        stream,
        payload,
    })
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// The last thing of interest that was said.
fn outcome(said: &[Frame]) -> Outcome {
    let is_closed = said.last().is_none_or(|last| last.kind != PING);
    let found = said.iter().rev().find_map(|frame| match frame.kind {
        GOAWAY => Some(Goaway(code(&frame.payload[4..]))),
        RST_STREAM => Some(Reset(frame.stream, code(&frame.payload))),
        DATA if frame.flags & END_STREAM != 0 => Some(Answered(frame.stream)),
        _ => None,
    });
    let found = found.unwrap_or(Nothing);
    assert_eq!(is_closed, matches!(found, Goaway(_)), "{said:?}");
    found
}

async fn check(name: &str, frames: &[Vec<u8>], expected: Outcome) {
    let begin = settings(3, 100);
    let all = [&[begin][..], frames].concat();
    assert_eq!(outcome(&said_to(all.clone()).await), expected, "{name}");
    // However it is cut.
    let bytes = all.concat();
    if bytes.len() < 2000 {
        let pieces = bytes.iter().map(|&byte| vec![byte]);
        assert_eq!(
            outcome(&said_to(pieces).await),
            expected,
            "{name}, byte by byte"
        );
    }
}

#[tokio::test]
async fn what_is_right_is_answered() {
    check("a request", &[get(1)], Answered(1)).await;
    check("several", &[get(1), get(3), get(7)], Answered(7)).await;
    let padded = [&[3][..], GET, &[0; 3]].concat();
    let padded = frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &padded);
    check("padding", &[padded], Answered(1)).await;
    let weighed = [&[0, 0, 0, 0, 9][..], GET].concat();
    let weighed = frame(
        HEADERS,
        END_HEADERS | END_STREAM | WITH_PRIORITY,
        1,
        &weighed,
    );
    check(
        "a priority",
        &[frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 1]), weighed],
        Answered(1),
    )
    .await;
    let in_pieces = [
        frame(HEADERS, END_STREAM, 1, &GET[..3]),
        frame(CONTINUATION, 0, 1, &GET[3..5]),
        frame(CONTINUATION, END_HEADERS, 1, &GET[5..]),
    ];
    check("a block in pieces", &in_pieces, Answered(1)).await;
    check(
        "an unknown frame",
        &[frame(0x42, 0xff, 9, b"what"), get(1)],
        Answered(1),
    )
    .await;
    check(
        "an unknown setting",
        &[settings(0x42, 1), get(1)],
        Answered(1),
    )
    .await;
    let late = [
        get(1),
        window_update(1, 10),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        get(3),
    ];
    check("frames that crossed the answer", &late, Answered(3)).await;
    let shut = [settings(4, 0), get(1)];
    check("a window that is shut", &shut, Nothing).await;
    let opened = [settings(4, 0), get(1), window_update(1, 2), settings(4, 4)];
    check("one that opens in two ways", &opened, Answered(1)).await;
    check(
        "an acknowledgement",
        &[frame(SETTINGS, ACK, 0, b""), get(1)],
        Answered(1),
    )
    .await;
}

/// Cases with the same outcome: what they are, and what the client sends.
type Cases = Vec<(&'static str, Vec<Vec<u8>>)>;

async fn check_all(expected: Outcome, cases: Cases) {
    for (name, frames) in cases {
        check(name, &frames, expected).await;
        if matches!(expected, Reset(..)) {
            // What comes after it is read as it was meant.
            let after = [&frames[..], &[get(3)]].concat();
            check(name, &after, Answered(3)).await;
        }
    }
}

#[tokio::test]
async fn frames_where_they_do_not_belong_end_the_connection() {
    let cases = vec![
        ("data of the connection", vec![frame(DATA, 0, 0, b"")]),
        ("data of nothing", vec![frame(DATA, 0, 1, b"")]),
        ("a server's stream", vec![get(2)]),
        ("headers of the connection", vec![get(0)]),
        ("the end of nothing", vec![frame(RST_STREAM, 0, 1, &[0; 4])]),
        ("settings of a stream", vec![frame(SETTINGS, 0, 1, b"")]),
        ("a push", vec![frame(PUSH_PROMISE, 4, 1, b"\0\0\0\x02")]),
        ("a ping of a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        ("a goodbye of a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])]),
        (
            "a priority of nothing",
            vec![frame(PRIORITY, 0, 0, &[0; 5])],
        ),
        ("the window of nothing", vec![window_update(1, 1)]),
        ("a window opened by nothing", vec![window_update(0, 0)]),
        ("small frames", vec![settings(5, 1)]),
        ("a push perhaps", vec![settings(2, 2)]),
    ];
    check_all(Goaway(PROTOCOL_ERROR), cases).await;
    let ended = vec![post(1, b""), frame(RST_STREAM, 0, 1, &[0; 4])];
    let cases = vec![
        ("a smaller stream", vec![post(5, b""), get(3)]),
        ("a stream that was reset", [ended, vec![get(1)]].concat()),
    ];
    check_all(Goaway(STREAM_CLOSED), cases).await;
    let said = said_to([frame(PING, 0, 0, &[0; 8])]).await;
    assert_eq!(outcome(&said), Goaway(PROTOCOL_ERROR), "no settings");
}

#[tokio::test]
async fn frames_of_a_wrong_size_end_the_connection() {
    let headers = |fields| frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, fields);
    let cases = vec![
        ("a large frame", vec![frame(DATA, 0, 1, &[0; 16_385])]),
        ("no room for a priority", vec![headers(b"\0")]),
        ("a short priority", vec![frame(PRIORITY, 0, 1, &[0; 4])]),
        (
            "a short end",
            vec![get(1), frame(RST_STREAM, 0, 1, &[0; 3])],
        ),
        ("short settings", vec![frame(SETTINGS, 0, 0, b"12345")]),
        ("a long answer", vec![frame(SETTINGS, ACK, 0, &[0; 6])]),
        ("a short ping", vec![frame(PING, 0, 0, &[0; 7])]),
        ("a short goodbye", vec![frame(GOAWAY, 0, 0, &[0; 7])]),
        ("half a window", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 2])]),
    ];
    check_all(Goaway(FRAME_SIZE_ERROR), cases).await;
    let cases = vec![
        ("a large window", vec![settings(4, 1 << 31)]),
        ("a window too wide", vec![window_update(0, 0x7fff_ffff)]),
        (
            "of all streams",
            vec![post(1, b""), window_update(1, 9), settings(4, 0x7fff_ffff)],
        ),
    ];
    check_all(Goaway(FLOW_CONTROL_ERROR), cases).await;
}

#[tokio::test]
async fn header_blocks_that_are_none_end_the_connection() {
    let begun = frame(HEADERS, 0, 1, GET);
    let rest = |stream| frame(CONTINUATION, END_HEADERS, stream, b"");
    let padded = |fields| frame(HEADERS, END_HEADERS | PADDED, 1, fields);
    let weighed = frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, b"\0\0\0\x01\0");
    let cases = vec![
        ("a rest of nothing", vec![rest(1)]),
        (
            "an interruption",
            vec![begun.clone(), frame(PING, 0, 0, &[0; 8])],
        ),
        ("another's rest", vec![begun.clone(), rest(3)]),
        ("padding without end", vec![padded(b"\x05\x82")]),
        ("no room for padding", vec![padded(b"")]),
        ("a stream on itself", vec![weighed]),
    ];
    check_all(Goaway(PROTOCOL_ERROR), cases).await;
    let unreadable = frame(HEADERS, END_HEADERS, 1, &[0xff; 9]);
    check("bytes", &[unreadable], Goaway(COMPRESSION_ERROR)).await;
    let more = |length, count| {
        let more = frame(CONTINUATION, 0, 1, &vec![0; length]);
        [vec![begun.clone()], vec![more; count]].concat()
    };
    let cases = vec![("endless", more(0, 40)), ("large", more(16_000, 17))];
    check_all(Goaway(ENHANCE_YOUR_CALM), cases).await;
}

#[tokio::test]
async fn a_client_that_goes_too_far_is_told_to_calm_down() {
    let pings = vec![frame(PING, 0, 0, &[0; 8]); 4];
    check("pings", &pings, Goaway(ENHANCE_YOUR_CALM)).await;
    // What is given up leaves nothing: that is a client's right.
    let given_up = |id| [post(id, b""), frame(RST_STREAM, 0, id, &[0; 4])].concat();
    let mut requests: Vec<Vec<u8>> = (0..5000).map(|at| given_up(2 * at + 1)).collect();
    requests.push(get(10_001));
    let said = said_to([settings(3, 1)].into_iter().chain(requests)).await;
    assert_eq!(outcome(&said), Answered(10_001));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_ends_its_stream() {
    let fields = |fields: &[u8]| vec![frame(HEADERS, END_HEADERS, 1, fields)];
    let with = |more: &[u8]| vec![post(1, more)];
    let cases = vec![
        ("no path", fields(b"\x82\x86")),
        ("no method", fields(b"\x84\x86")),
        ("no scheme", fields(b"\x82\x84")),
        ("two paths", fields(b"\x82\x86\x84\x84")),
        ("a path at last", fields(b"\x82\x86\x40\x01a\x01b\x84")),
        ("a status", with(b"\x88")),
        ("an unknown pseudo-header", with(b"\x40\x02:a\x01b")),
        ("an upper case name", with(b"\x40\x01A\x01b")),
        ("no name", with(b"\x40\x00\x01b")),
        ("a line in a value", with(b"\x40\x01a\x03b\r\n")),
        ("connection", with(b"\x40\x0aconnection\x05close")),
        ("chunks", with(b"\x40\x11transfer-encoding\x07chunked")),
        ("te", with(b"\x40\x02te\x04gzip")),
        ("another place", fields(b"\x82\x86\x04\x04/a#b")),
        ("no place", fields(b"\x82\x86\x04\x00")),
        ("two lengths", with(b"\x0f\x0d\x011\x0f\x0d\x012")),
        ("no length", with(b"\x40\x0econtent-length\x01x")),
    ];
    check_all(Reset(1, PROTOCOL_ERROR), cases).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_body_ends_its_stream() {
    let two_bytes = post(1, b"\x40\x0econtent-length\x012");
    let trailers = |flags, fields| vec![post(1, b""), frame(HEADERS, flags, 1, fields)];
    let data = |flags, data| frame(DATA, flags, 1, data);
    let cases = vec![
        ("too short", vec![two_bytes.clone(), data(END_STREAM, b"1")]),
        ("too long", vec![two_bytes, data(0, b"123")]),
        ("no trailers", trailers(END_HEADERS, b"\x40\x01a\x01b")),
        (
            "a method at last",
            trailers(END_HEADERS | END_STREAM, b"\x82"),
        ),
        (
            "a window opened by nothing",
            vec![post(1, b""), window_update(1, 0)],
        ),
    ];
    check_all(Reset(1, PROTOCOL_ERROR), cases).await;
    let cases = vec![
        (
            "after its end",
            vec![post(1, b""), data(END_STREAM, b""), data(0, b"")],
        ),
        (
            "after it was reset by its client",
            vec![post(1, b""), frame(RST_STREAM, 0, 1, &[0; 4]), data(0, b"")],
        ),
    ];
    check_all(Reset(1, STREAM_CLOSED), cases).await;
    // What its client sent before it heard of that.
    let refused = vec![
        post(1, b""),
        window_update(1, 0),
        data(0, b"more"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x40\x01a\x01b"),
    ];
    check_all(
        Reset(1, PROTOCOL_ERROR),
        vec![("after it was reset", refused)],
    )
    .await;
    let padding = frame(DATA, PADDED, 1, &[&[254][..], &[0; 254]].concat());
    let padding = [vec![post(1, b"")], vec![padding; 6000]].concat();
    check("padding is given back", &padding, Nothing).await;
    let unread = [vec![post(1, b"")], vec![data(0, &[0; 16_384]); 65]].concat();
    let wide = vec![post(1, b""), window_update(1, 0x7fff_ffff)];
    let cases = vec![
        ("more than the window", unread),
        ("a window too wide", wide),
    ];
    check_all(Reset(1, FLOW_CONTROL_ERROR), cases).await;
}

#[tokio::test]
async fn large_headers_are_refused_and_the_connection_goes_on() {
    let large = [&b"\x40\x01a\x7f\xa1\x1f"[..], &[b'x'; 4128]].concat();
    // One that is in the table, again and again: 64 KiB of headers in few bytes.
    let small = [GET, b"\x40\x01a\x7f\xd1\x0f", &[b'x'; 2128], &[0xbe; 40]].concat();
    let refused = frame(HEADERS, END_HEADERS | END_STREAM, 1, &small);
    let said = said_to([settings(3, 1), refused, get(3)]).await;
    assert_eq!(outcome(&said), Answered(3));
    let head = said
        .iter()
        .find(|frame| (frame.kind, frame.stream) == (HEADERS, 1))
        .unwrap();
    assert!(
        head.flags & END_STREAM != 0 && head.payload.windows(3).any(|it| it == b"431"),
        "{head:?}"
    );
    // More than may be, also as it comes: the others on the connection go on.
    let more = [0x40, 0x01, b'a', 0x7f, 0x81, 0x7f];
    let more = [&more[..], &[b'x'; 16_384]].concat();
    let mut huge = vec![frame(HEADERS, END_STREAM, 1, GET)];
    let more = more.repeat(5);
    let pieces = more.chunks(16_384);
    huge.extend(pieces.map(|piece| frame(CONTINUATION, 0, 1, piece)));
    huge.push(frame(CONTINUATION, END_HEADERS, 1, b""));
    let said = said_to([vec![settings(3, 1)], huge, vec![get(3)]].concat()).await;
    assert_eq!(outcome(&said), Answered(3));
    let kept = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &[GET, &large].concat(),
    );
    assert_eq!(outcome(&said_to([settings(3, 1), kept]).await), Answered(1));
}

/// Paths of sockets, and what etcd's own client said once.
#[tokio::test]
async fn any_authority_will_do() {
    for authority in [
        "",
        "%2Ftmp%2Fx.sock",
        "/tmp/x.sock",
        "#initially=[127.0.0.1:2379]",
        "a b",
    ] {
        let length = u8::try_from(authority.len()).unwrap();
        let fields = [b"\x82\x86\x84\x41", &[length][..], authority.as_bytes()].concat();
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
        check(authority, &[asked], Answered(1)).await;
        let twice = [&fields[..], b"\x41", &[length], authority.as_bytes()].concat();
        let and_another = [&fields[..], b"\x41\x04host"].concat();
        for fields in [twice, and_another] {
            let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
            check(authority, &[asked], Reset(1, PROTOCOL_ERROR)).await;
        }
    }
}

/// One whose system takes nothing more is not there, however much it has asked before.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_given_up() {
    for requests in [1, 100_000_u32] {
        let (client, server) = tokio::io::duplex(1024);
        let (_reader, mut writer) = tokio::io::split(client);
        let options = Options {
            keepalive_interval: Duration::from_secs(10),
            ..options()
        };
        let serving = Connection::new(server, BytesMut::new(), &options, answer);
        let asking = tokio::spawn(async move {
            writer.write_all(&settings(3, 1)).await.unwrap();
            let mut ids = (0..requests).map(|at| 2 * at + 1);
            // Until it is hung up on.
            while let Some(id) = ids.next()
                && writer.write_all(&get(id)).await.is_ok()
            {}
            writer
        });
        assert!(matches!(serving.await, Err(Error::Silent)));
        drop(asking.await.unwrap());
    }
}

/// As grpc-go; clients take what is not said for no limit.
#[tokio::test]
async fn only_a_limit_of_streams_is_said() {
    for (limit, is_said) in [(u32::MAX, false), (7, true)] {
        let (mut client, server) = tokio::io::duplex(1024);
        let options = Options {
            max_concurrent_streams: limit,
            ..options()
        };
        let serving = Connection::new(server, BytesMut::new(), &options, answer);
        let serving = tokio::spawn(serving);
        let said = read_frame(&mut client).await.unwrap();
        assert_eq!(said.kind, SETTINGS);
        let setting = [&3_u16.to_be_bytes()[..], &limit.to_be_bytes()].concat();
        let found = said.payload.chunks(6).any(|said| said == setting);
        let named = said.payload.chunks(6).any(|said| said[..2] == setting[..2]);
        assert_eq!((found, named), (is_said, is_said));
        drop(client);
        drop(serving.await.unwrap());
    }
}

/// Requests of a client that does not read their answers: they wait in its system, not in our memory.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_not_read() {
    const REQUESTS: u32 = 200_000;
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(client);
    let serving = tokio::spawn(Connection::new(server, BytesMut::new(), &options(), answer));
    let (asked, mut have_asked) = tokio::sync::watch::channel(0);
    let asking = tokio::spawn(async move {
        let begin = [settings(3, 1), window_update(0, 1 << 30)].concat();
        writer.write_all(&begin).await.unwrap();
        for at in 0..REQUESTS {
            writer.write_all(&get(2 * at + 1)).await.unwrap();
            asked.send_replace(at + 1);
        }
        writer
    });
    // Time passes only while everybody waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before_it_reads = *have_asked.borrow_and_update();
    assert!(before_it_reads < 20_000, "{before_it_reads}");
    // Then all are answered.
    let mut answered = 0;
    while answered < REQUESTS {
        let frame = read_frame(&mut reader).await.unwrap();
        answered += u32::from((frame.kind, frame.flags) == (DATA, END_STREAM));
    }
    drop((reader, asking.await.unwrap()));
    drop(serving.await.unwrap());
}

/// Whatever comes, the connection ends or answers, and nothing panics. `KVORUM_ROUNDS` says how often, `KVORUM_SEED`
/// with what.
#[tokio::test]
async fn noise_does_no_harm() {
    let given = |name, other| std::env::var(name).map_or(other, |it| it.parse().unwrap());
    let rounds = given("KVORUM_ROUNDS", 2000);
    let mut seed = given("KVORUM_SEED", 0x2545_f491_4f6c_dd1d_u64);
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap() % below
    };
    let valid = [
        settings(4, 10),
        get(1),
        post(3, b""),
        frame(DATA, 0, 3, b"some data"),
        window_update(3, 10),
        frame(HEADERS, 0, 5, GET),
        frame(CONTINUATION, END_HEADERS, 5, b"\x40\x01a\x01b"),
        frame(RST_STREAM, 0, 3, &[0; 4]),
        frame(PRIORITY, 0, 7, &[0; 5]),
        get(7),
    ];
    for _ in 0..rounds {
        let mut bytes: Vec<u8> = (0..random(12))
            .flat_map(|_| valid[random(valid.len())].clone())
            .collect();
        for _ in 0..random(4) {
            if !bytes.is_empty() {
                let at = random(bytes.len());
                bytes[at] = random(256).to_le_bytes()[0];
            }
        }
        // It may wait for the rest of a frame: then it hears that there is none.
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(Connection::new(server, BytesMut::new(), &options(), answer));
        client
            .write_all(&[settings(3, 1), bytes].concat())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        drop(serving.await.expect("no panic"));
    }
}

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_connection_that_has_nothing_to_do_does_not_call_its_own_task() {
    let (mut client, server) = tokio::io::duplex(1024);
    let served = Connection::new(server, BytesMut::new(), &options(), answer);
    let mut served = std::pin::pin!(served);
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(Arc::clone(&calls));
    let mut cx = Context::from_waker(&waker);
    let asked = [settings(3, 100), post(1, b""), post(3, b"")].concat();
    for byte in asked.chunks(1) {
        client.write_all(byte).await.unwrap();
        calls.0.store(0, Ordering::SeqCst);
        assert!(served.as_mut().poll(&mut cx).is_pending());
        assert_eq!(calls.0.load(Ordering::SeqCst), 0);
    }
}
