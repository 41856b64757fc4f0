#!/bin/sh
# The same files with cfssl and cfssljson, for whoever keeps an authority with them:
#
#   deploy/tls/cfssl.sh DIR etcd-1=10.0.0.11 etcd-2=10.0.0.12 etcd-3=10.0.0.13
set -eu
umask 077

if [ $# -lt 2 ]; then
    echo "usage: ${0##*/} DIR NAME=ADDRESS..." >&2
    exit 2
fi
out=$1
shift
mkdir -p "$out"

cat >"$out/config.json" <<'CONFIG'
{"signing": {"default": {"expiry": "8760h"}, "profiles": {
    "member": {"expiry": "8760h", "usages": ["signing", "key encipherment", "server auth", "client auth"]},
    "client": {"expiry": "8760h", "usages": ["signing", "key encipherment", "client auth"]}}}}
CONFIG

if [ ! -e "$out/ca.key" ] && [ ! -e "$out/ca.crt" ]; then
    echo '{"CN": "etcd-ca", "key": {"algo": "ecdsa", "size": 256}, "ca": {"expiry": "87600h"}}' |
        cfssl gencert -loglevel=3 -initca - | cfssljson -bare "$out/ca"
    mv "$out/ca.pem" "$out/ca.crt"
    mv "$out/ca-key.pem" "$out/ca.key"
    rm "$out/ca.csr"
fi

# issue FILE PROFILE REQUEST
issue() {
    echo "$3" | cfssl gencert -loglevel=3 -ca "$out/ca.crt" -ca-key "$out/ca.key" \
        -config "$out/config.json" -profile "$2" - | cfssljson -bare "$1"
    mv "$1.pem" "$1.crt"
    mv "$1-key.pem" "$1.key"
    rm "$1.csr"
    chmod 644 "$1.crt"
}
key='"key": {"algo": "ecdsa", "size": 256}'

for member; do
    name=${member%%=*}
    address=${member#*=}
    mkdir -p "$out/$name"
    cp "$out/ca.crt" "$out/$name/ca.crt"
    for file in server peer; do
        issue "$out/$name/$file" member \
            "{\"CN\": \"$name\", $key, \"hosts\": [\"$name\", \"localhost\", \"127.0.0.1\", \"::1\", \"$address\"]}"
    done
done
issue "$out/client" client "{\"CN\": \"root\", $key}"
issue "$out/apiserver-etcd-client" client \
    "{\"CN\": \"kube-apiserver-etcd-client\", $key, \"names\": [{\"O\": \"kubeadm:cluster-admins\"}]}"
