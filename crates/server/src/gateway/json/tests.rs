use prost::Message as _;
use prost_reflect::DescriptorPool;

use super::*;

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(api::FILE_DESCRIPTOR_SET).unwrap();
    pool.get_message_by_name(name).unwrap()
}

fn range(json: &str) -> Result<api::etcdserverpb::RangeRequest, String> {
    let decoded = decode(&descriptor("etcdserverpb.RangeRequest"), json.as_bytes())?;
    Ok(api::etcdserverpb::RangeRequest::decode(&*decoded).unwrap())
}

fn values(json: &str) -> (Vec<String>, Option<String>) {
    let mut values = Values::new();
    let mut found = Vec::new();
    for byte in json.bytes() {
        values.feed(&[byte]);
        match values.next(Input::MayGoOn) {
            Ok(value) => found.extend(value),
            Err(error) => return (shown(found), Some(error)),
        }
    }
    loop {
        match values.next(Input::Ended) {
            Ok(Some(value)) => found.push(value),
            Ok(None) => return (shown(found), None),
            Err(error) => return (shown(found), Some(error)),
        }
    }
}

fn shown(values: Vec<Bytes>) -> Vec<String> {
    values
        .iter()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

#[test]
fn values_are_found_one_after_another() {
    let (found, error) = values(" {\"a\":[1,-2.5e+3,{}, [] ,\"\\\"}\\u00e4\"]}\n{}7 null\"x\"");
    assert_eq!(error, None);
    assert_eq!(
        found,
        [
            "{\"a\":[1,-2.5e+3,{}, [] ,\"\\\"}\\u00e4\"]}",
            "{}",
            "7",
            "null",
            "\"x\""
        ]
    );
    assert_eq!(values(" \n"), (Vec::new(), None));
}

#[test]
fn what_is_no_json_is_refused_in_gos_words() {
    for (json, words) in [
        ("{", "unexpected EOF"),
        ("tru", "unexpected EOF"),
        (
            "bad",
            "invalid character 'b' looking for beginning of value",
        ),
        (
            "{bad",
            "invalid character 'b' looking for beginning of object key string",
        ),
        ("{\"a\"x", "invalid character 'x' after object key"),
        (
            "{\"a\":1x",
            "invalid character 'x' after object key:value pair",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        ("[1 2", "invalid character '2' after array element"),
        (
            "[1,]",
            "invalid character ']' looking for beginning of value",
        ),
        (
            "{\"key\":tru}",
            "invalid character '}' in literal true (expecting 'e')",
        ),
        ("[-x", "invalid character 'x' in numeric literal"),
        (
            "[1.x",
            "invalid character 'x' after decimal point in numeric literal",
        ),
        (
            "[1ex",
            "invalid character 'x' in exponent of numeric literal",
        ),
        ("[01", "invalid character '1' after array element"),
        ("\"\n", "invalid character '\\n' in string literal"),
        ("\"\\x", "invalid character 'x' in string escape code"),
        (
            "\"\\u00g",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        (
            "'",
            "invalid character '\\'' looking for beginning of value",
        ),
        (
            "\u{e4}",
            "invalid character '\u{c3}' looking for beginning of value",
        ),
    ] {
        assert_eq!(values(json).1.as_deref(), Some(words), "{json}");
    }
    let deep = "[".repeat(10_001);
    assert_eq!(values(&deep).1.unwrap(), "exceeded max depth");
}

#[test]
fn fields_are_taken_in_every_form_that_protojson_takes() {
    let asked = range(
        r#"{"key":"YQ==","range_end":"_w","limit":"5","revision":7.0,"sort_order":"DESCEND",
            "sortTarget":2,"serializable":true,"keysOnly":false,"count_only":null,
            "unknown":[{"a":{}},"]"],"min_mod_revision":"1e2","max_mod_revision":30e-1}"#,
    );
    let asked = asked.unwrap();
    assert_eq!(
        (&asked.key[..], &asked.range_end[..]),
        (&b"a"[..], &b"\xff"[..])
    );
    assert_eq!((asked.limit, asked.revision), (5, 7));
    assert_eq!((asked.sort_order, asked.sort_target), (2, 2));
    assert!(asked.serializable);
    assert_eq!((asked.min_mod_revision, asked.max_mod_revision), (100, 3));
    assert_eq!(range(r#"{"sort_order":"SIDEWAYS"}"#).unwrap().sort_order, 0);
}

#[test]
fn wrong_values_are_refused_in_protojsons_words() {
    for (json, words) in [
        ("null", "syntax error (line 1:1): unexpected token null"),
        ("[]", "syntax error (line 1:1): unexpected token ["),
        (
            r#"{"key":1}"#,
            "(line 1:8): invalid value for bytes field key: 1",
        ),
        (
            r#"{"key":"!!"}"#,
            "(line 1:8): invalid value for bytes field key: \"!!\"",
        ),
        (
            "{\"limit\":\n  \"x\"}",
            "(line 2:3): invalid value for int64 field limit: \"x\"",
        ),
        (
            r#"{"limit":1.5}"#,
            "(line 1:10): invalid value for int64 field limit: 1.5",
        ),
        (
            r#"{"limit":" 5"}"#,
            "(line 1:10): invalid value for int64 field limit: \" 5\"",
        ),
        (
            r#"{"limit":9223372036854775808}"#,
            "(line 1:10): invalid value for int64 field limit: 9223372036854775808",
        ),
        (
            r#"{"sort_order":true}"#,
            "(line 1:15): invalid value for enum field sortOrder: true",
        ),
        (
            r#"{"keys_only":"true"}"#,
            "(line 1:14): invalid value for bool field keysOnly: \"true\"",
        ),
        (
            r#"{"key":{}}"#,
            "(line 1:8): invalid value for bytes field key: {",
        ),
        (
            r#"{"limit":1,"limit":2}"#,
            "(line 1:12): duplicate field \"limit\"",
        ),
        (r#"{"key":"\ud800"}"#, "unexpected EOF"),
    ] {
        assert_eq!(
            range(json).unwrap_err(),
            format!("proto: {words}"),
            "{json}"
        );
    }
    let txn = |json: &str| decode(&descriptor("etcdserverpb.TxnRequest"), json.as_bytes());
    assert_eq!(
        txn(r#"{"success":[{"request_range":{},"request_put":{}}]}"#).unwrap_err(),
        "proto: (line 1:33): error parsing \"request_put\", oneof etcdserverpb.RequestOp.request is \
         already set"
    );
    assert_eq!(
        txn(r#"{"success":[null]}"#).unwrap_err(),
        "proto: syntax error (line 1:13): unexpected token null"
    );
    assert_eq!(
        txn(r#"{"success":{}}"#).unwrap_err(),
        "proto: syntax error (line 1:12): unexpected token {"
    );
}

#[test]
fn messages_are_shown_without_what_is_empty() {
    let response = api::etcdserverpb::RangeResponse {
        header: Some(api::etcdserverpb::ResponseHeader {
            cluster_id: u64::MAX,
            revision: 7,
            ..Default::default()
        }),
        kvs: vec![api::mvccpb::KeyValue {
            key: "a\u{ff}".into(),
            ..Default::default()
        }],
        more: true,
        count: 0,
    };
    let json = encode(
        &descriptor("etcdserverpb.RangeResponse"),
        &response.encode_to_vec().into(),
    );
    assert_eq!(
        String::from_utf8(json.unwrap()).unwrap(),
        r#"{"header":{"cluster_id":"18446744073709551615","revision":"7"},"kvs":[{"key":"YcO/"}],"more":true}"#
    );
}

#[test]
fn nesting_ends_before_the_stack_does() {
    let deep = |depth| {
        let open = r#"{"success":[{"request_txn":"#.repeat(depth);
        let close = "}]}".repeat(depth);
        decode(
            &descriptor("etcdserverpb.TxnRequest"),
            format!("{open}{{}}{close}").as_bytes(),
        )
    };
    assert!(deep(40).is_ok());
    assert_eq!(
        deep(3000).unwrap_err(),
        "proto: exceeded max recursion depth"
    );
    let unknown = format!("{{\"x\":{}{}}}", "[".repeat(9000), "]".repeat(9000));
    assert!(range(&unknown).is_ok());
}
