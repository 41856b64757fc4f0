//! Compiles `proto/` with protox, so that no protoc has to be installed.
//!
//! Two sets of Rust types come out of one set of `.proto` files:
//!
//! - the typed messages and the *clients*, as any etcd client knows them;
//! - the *servers*, in which every stored `KeyValue` and every watch `Event` is already encoded: a `KeyValue`
//!   as `encoded::mvccpb` has it, an `Event` as a `bytes` field, which on the wire is the same as an embedded
//!   message. So both go from the store to the socket without being decoded. And the keys and values of what
//!   [`ASKED`] lists are slices of the message that they came in.
//!
//! All other messages are the same Rust type in both sets.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

const PROTO_DIR: &str = "../../proto";
const PROTOS: [&str; 8] = [
    "mvccpb.proto",
    "authpb.proto",
    "etcdserverpb.proto",
    "leasepb.proto",
    "v3lockpb.proto",
    "v3electionpb.proto",
    "internalpb.proto",
    "peerpb.proto",
];
/// Messages that travel already encoded in the server's set: one with a type of its own ...
const KEY_VALUE: &str = ".mvccpb.KeyValue";
/// ... and one as bytes.
const EVENT: &str = ".mvccpb.Event";
/// Requests for keys, without those that hold others of them.
const ASKED: [&str; 4] = [
    ".etcdserverpb.RangeRequest",
    ".etcdserverpb.PutRequest",
    ".etcdserverpb.DeleteRangeRequest",
    ".etcdserverpb.Compare",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile(PROTOS, [PROTO_DIR])?;
    let out = Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    // `tonic-prost-build` wants its own prost-types; both are the workspace's one version.
    generate_typed(descriptors.clone())?;
    generate_encoded(descriptors)?;
    Ok(())
}

fn generate_typed(descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .bytes(".internalpb")
        .bytes(".peerpb")
        .bytes(".mvccpb.KeyValue")
        .compile_fds(descriptors)?;
    Ok(())
}

fn generate_encoded(mut descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let own = own_messages(&descriptors);
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .generate_default_stubs(true)
        .codec_path("crate::codec::OneCopyCodec")
        .bytes(".")
        .extern_path(KEY_VALUE, "crate::encoded::mvccpb::KeyValue");
    for file in &mut descriptors.file {
        let package = file.package().to_owned();
        for message in &mut file.message_type {
            let path = format!(".{package}.{}", message.name());
            if own.contains(&path) {
                encode_events(message);
            } else if path != KEY_VALUE {
                let name = rust_name(message.name());
                builder = builder.extern_path(path, format!("crate::{package}::{name}"));
            }
        }
        for enumeration in &file.enum_type {
            let name = rust_name(enumeration.name());
            let path = format!(".{package}.{}", enumeration.name());
            builder = builder.extern_path(path, format!("crate::{package}::{name}"));
        }
    }
    descriptors
        .file
        .retain(|file| file.package() != "internalpb");
    let out = Path::new(&std::env::var("OUT_DIR")?).join("encoded");
    std::fs::create_dir_all(&out)?;
    builder.out_dir(out).compile_fds(descriptors)?;
    Ok(())
}

/// The messages that are types of their own in the server's set: what [`ASKED`] lists, and what holds one of them, a
/// `KeyValue` or an `Event`, directly or through another message.
fn own_messages(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let mut own: BTreeSet<String> = ASKED.map(str::to_owned).into();
    loop {
        let before = own.len();
        for file in &descriptors.file {
            if file.package() == "mvccpb" || file.package() == "internalpb" {
                continue;
            }
            for message in &file.message_type {
                let holds = message.field.iter().any(|field| {
                    [KEY_VALUE, EVENT].contains(&field.type_name())
                        || own.contains(field.type_name())
                });
                if holds {
                    own.insert(format!(".{}.{}", file.package(), message.name()));
                }
            }
        }
        if own.len() == before {
            return own;
        }
    }
}

fn encode_events(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == EVENT {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}

/// prost's Rust name of a message or enum: `HashKVRequest` becomes `HashKvRequest`.
fn rust_name(proto: &str) -> String {
    let chars: Vec<char> = proto.chars().collect();
    let mut name = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let after_upper = i > 0 && chars[i - 1].is_uppercase();
        let before_lower = chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && after_upper && !before_lower {
            name.extend(c.to_lowercase());
        } else {
            name.push(c);
        }
    }
    name
}
