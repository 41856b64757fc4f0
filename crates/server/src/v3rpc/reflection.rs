//! gRPC's server reflection (`--grpc-reflection`): which services and messages there are, for grpcurl and its
//! like. etcd has none: whoever does not ask for it gets an etcd's answer, that there is no such service.

use tonic::service::Routes;
use tonic_reflection::server::Builder;

/// What the paths of reflection begin with, of all its versions.
const PREFIX: &str = "/grpc.reflection.";

/// Whether the path is one of reflection's.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Answers for all versions of reflection.
pub(crate) fn routes() -> Routes {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    const COMPLETE: &str = "the descriptors were compiled with our own";
    let v1 = builder().build_v1().expect(COMPLETE);
    let v1alpha = builder().build_v1alpha().expect(COMPLETE);
    Routes::new(v1).add_service(v1alpha)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_complete() {
        routes();
        assert!(is_path(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        ));
        assert!(!is_path("/grpc.health.v1.Health/Check"));
    }
}
