//! When the certificates in use stop being valid. Ours, not etcd's.

use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Registry};
use transport::TlsServer;

use super::{Registrar, gauge_value};

pub(super) struct CertificateMetrics {
    not_after: IntGaugeVec,
    followed: Mutex<Vec<TlsServer>>,
}

impl CertificateMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let not_after = Registrar(registry).gauges(
            "kvorum_tls_certificate_not_after_seconds",
            "When the file's first certificate or list to expire does, Unix time.",
            &["file", "usage"],
        )?;
        Ok(Self {
            not_after,
            followed: Mutex::default(),
        })
    }

    /// Shows this one's certificates from now on.
    pub(super) fn follow(&self, tls: TlsServer) {
        self.followed.lock().push(tls);
    }

    pub(super) fn read(&self) {
        let certificates: Vec<_> = {
            let followed = self.followed.lock();
            followed.iter().flat_map(TlsServer::certificates).collect()
        };
        self.not_after.reset();
        for certificate in certificates {
            let file = certificate.file.display().to_string();
            let not_after = certificate.not_after.duration_since(UNIX_EPOCH);
            self.not_after
                .with_label_values(&[file.as_str(), certificate.usage])
                .set(gauge_value(not_after.unwrap_or_default().as_secs()));
        }
    }
}
