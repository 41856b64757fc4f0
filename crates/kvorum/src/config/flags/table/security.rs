//! Flags about TLS.

use super::flags;
use crate::config::flags::value::{list, switch, text, unsigned};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Security Value "cert-file" ""
        "Path to the certificate shown to clients on https urls (PEM). Followed when it changes."
        => |o, v| text(&mut o.client_tls.cert_file, v);
    Security Value "key-file" ""
        "Path to its key (PEM). Followed when it changes."
        => |o, v| text(&mut o.client_tls.key_file, v);
    Security Value "client-cert-file" ""
        "Path to a certificate with which etcd's gateway asks etcd; checked, but the gateway here needs none."
        => |o, v| text(&mut o.client_tls.client_cert_file, v);
    Security Value "client-key-file" ""
        "Path to its key."
        => |o, v| text(&mut o.client_tls.client_key_file, v);
    Security Switch "client-cert-auth" "false"
        "Whether clients must show a certificate from --trusted-ca-file."
        => |o, v| switch(&mut o.client_tls.client_cert_auth, v);
    Security Value "trusted-ca-file" ""
        "Path to the authorities of clients' certificates (PEM). Given, clients must show one. Followed when it changes."
        => |o, v| text(&mut o.client_tls.trusted_ca_file, v);
    Security Value "client-crl-file" ""
        "Path to a list of revoked certificates (PEM or DER) that no client may show. Followed when it changes."
        => |o, v| text(&mut o.client_tls.crl_file, v);
    Security Value "client-cert-allowed-hostname" ""
        "Comma-separated host names; a client's certificate must be valid for one."
        => |o, v| list(&mut o.client_tls.allowed_hostnames, v);
    Security Switch "auto-tls" "false"
        "Whether to make a certificate for clients when none is given. It is kept in the data directory."
        => |o, v| switch(&mut o.client_tls.auto_tls, v);
    Security Value "peer-cert-file" ""
        "Path to the certificate shown to peers (PEM). Followed when it changes."
        => |o, v| text(&mut o.peer_tls.cert_file, v);
    Security Value "peer-key-file" ""
        "Path to its key (PEM). Followed when it changes."
        => |o, v| text(&mut o.peer_tls.key_file, v);
    Security Value "peer-client-cert-file" ""
        "Path to the certificate with which peers are dialled, if not that of --peer-cert-file (PEM)."
        => |o, v| text(&mut o.peer_tls.client_cert_file, v);
    Security Value "peer-client-key-file" ""
        "Path to its key (PEM)."
        => |o, v| text(&mut o.peer_tls.client_key_file, v);
    Security Switch "peer-client-cert-auth" "false"
        "Whether peers must show a certificate from --peer-trusted-ca-file."
        => |o, v| switch(&mut o.peer_tls.client_cert_auth, v);
    Security Value "peer-trusted-ca-file" ""
        "Path to the authorities of peers' certificates (PEM). Given, peers must show one. Followed when it changes."
        => |o, v| text(&mut o.peer_tls.trusted_ca_file, v);
    Security Value "peer-crl-file" ""
        "Path to a list of revoked certificates (PEM or DER) that no peer may show. Followed when it changes."
        => |o, v| text(&mut o.peer_tls.crl_file, v);
    Security Value "peer-cert-allowed-cn" ""
        "Comma-separated common names; a peer's certificate must have one."
        => |o, v| list(&mut o.peer_tls.allowed_common_names, v);
    Security Value "peer-cert-allowed-hostname" ""
        "Comma-separated host names; a peer's certificate must be valid for one."
        => |o, v| list(&mut o.peer_tls.allowed_hostnames, v);
    Security Switch "peer-auto-tls" "false"
        "Whether to make a certificate for peers when none is given. Nobody's certificate is checked then."
        => |o, v| switch(&mut o.peer_tls.auto_tls, v);
    Security Switch "peer-skip-client-san-verification" "false"
        "Whether a peer's certificate may be for another address than the one it comes from."
        => |o, v| switch(&mut o.peer_tls.skip_client_san_verification, v);
    Security Switch "experimental-peer-skip-client-san-verification" "false"
        "The name of --peer-skip-client-san-verification before etcd 3.6."
        => |o, v| switch(&mut o.peer_tls.skip_client_san_verification, v);
    Security Value "self-signed-cert-validity" "1"
        "Years for which the certificates of --auto-tls and --peer-auto-tls are valid."
        => |o, v| unsigned(&mut o.self_signed_cert_validity_years, v);
    Security Value "cipher-suites" ""
        "Comma-separated cipher suites of TLS 1.2, by Go's names, for clients and peers. Empty: all good ones."
        => |o, v| list(&mut o.cipher_suites, v);
    Security Value "tls-min-version" "TLS1.2"
        "The lowest version spoken: TLS1.2 or TLS1.3."
        => |o, v| text(&mut o.tls_min_version, v);
    Security Value "tls-max-version" ""
        "The highest version spoken: TLS1.2 or TLS1.3. Empty: the highest there is."
        => |o, v| text(&mut o.tls_max_version, v);
};
