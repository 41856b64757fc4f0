//! The wire: etcd's messages and services, generated from `proto/`, and the table of
//! client-visible errors.
//!
//! Two views of the same wire exist (`build.rs` says how they are made):
//!
//! - [`etcdserverpb`], [`mvccpb`], … : typed messages and gRPC *clients*;
//! - [`encoded`]: gRPC *servers*, whose responses carry stored `KeyValue`s ([`encoded::mvccpb`]) and watch
//!   `Event`s (bytes) as they were encoded once, and whose requests for keys share the memory of what came.
//!
//! What this is not: behaviour. Nothing here validates, stores or answers.

pub mod codec;
pub mod rpctypes;
pub mod version;

/// Every `.proto` file of the wire, as an encoded `google.protobuf.FileDescriptorSet`: for whoever looks
/// at messages by their descriptors.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Includes the generated code of one protobuf package as a module of that name.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unused_qualifications,
            clippy::all,
            clippy::too_many_lines,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "generated code; proto/ documents it"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), $file));
        }
    };
}

package!(
    /// Key-values and events, as stored and as sent.
    mvccpb, "/mvccpb.rs"
);
package!(
    /// Users, roles and permissions.
    authpb, "/authpb.rs"
);
package!(
    /// The KV, Watch, Lease, Cluster, Maintenance and Auth services: messages and clients.
    etcdserverpb, "/etcdserverpb.rs"
);
package!(
    /// Leases as they are stored.
    leasepb, "/leasepb.rs"
);
package!(
    /// The Lock service: messages and client.
    v3lockpb, "/v3lockpb.rs"
);
package!(
    /// The Election service: messages and client.
    v3electionpb, "/v3electionpb.rs"
);
package!(
    /// What members write to their logs. Ours, not etcd's.
    internalpb, "/internalpb.rs"
);
package!(
    /// What members say to each other on the peer port: messages and clients. Ours, not etcd's.
    peerpb, "/peerpb.rs"
);

/// The server's view of the wire: stored messages stay encoded.
pub mod encoded {
    pub mod mvccpb;

    package!(
        /// Services of `etcdserverpb`, the responses that hold stored key-values, and the requests for keys.
        etcdserverpb, "/encoded/etcdserverpb.rs"
    );
    package!(
        /// The Lock service.
        v3lockpb, "/encoded/v3lockpb.rs"
    );
    package!(
        /// The Election service.
        v3electionpb, "/encoded/v3electionpb.rs"
    );
    package!(
        /// What members ask each other.
        peerpb, "/encoded/peerpb.rs"
    );
}
