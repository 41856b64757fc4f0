#!/bin/sh
# What `kvorum certs` makes, with openssl only:
#
#   deploy/tls/openssl.sh DIR etcd-1=10.0.0.11 etcd-2=10.0.0.12 etcd-3=10.0.0.13
#
# DIR/NAME gets ca.crt, server.crt, server.key, peer.crt and peer.key; DIR gets ca.crt, ca.key, client.crt,
# client.key and apiserver-etcd-client.crt and .key. An authority that is there goes on signing.
set -eu
umask 077

if [ $# -lt 2 ]; then
    echo "usage: ${0##*/} DIR NAME=ADDRESS..." >&2
    exit 2
fi
out=$1
shift
mkdir -p "$out"

if [ ! -e "$out/ca.key" ] && [ ! -e "$out/ca.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=etcd-ca \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign \
        -keyout "$out/ca.key" -out "$out/ca.crt" 2>/dev/null
fi

# issue FILE SUBJECT USAGES [NAMES]
issue() {
    {
        echo "keyUsage=critical,digitalSignature,keyEncipherment"
        echo "extendedKeyUsage=$3"
        if [ $# -gt 3 ]; then echo "subjectAltName=$4"; fi
    } >"$1.ext"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" \
        -keyout "$1.key" -out "$1.csr" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA "$out/ca.crt" -CAkey "$out/ca.key" -CAcreateserial -days 365 \
        -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
    chmod 644 "$1.crt"
}

for member; do
    name=${member%%=*}
    address=${member#*=}
    mkdir -p "$out/$name"
    cp "$out/ca.crt" "$out/$name/ca.crt"
    for file in server peer; do
        issue "$out/$name/$file" "/CN=$name" serverAuth,clientAuth \
            "DNS:$name,DNS:localhost,IP:127.0.0.1,IP:::1,IP:$address"
    done
done
issue "$out/client" /CN=root clientAuth
issue "$out/apiserver-etcd-client" "/O=kubeadm:cluster-admins/CN=kube-apiserver-etcd-client" clientAuth
