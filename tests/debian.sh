# Sourced by the scripts beside it: fetches packages of Debian into a folder of our own. Nothing is
# installed into the system, and the system's own package lists stay as they are.
#
#   debian_open SUITE DIR      private package lists of SUITE under DIR
#   debian_apt TOOL ARGS...    apt-get or apt-cache on those lists
#   debian_unpack ROOT PKG...  downloads the packages and unpacks them into ROOT

# Where everything that tests fetch or build once is kept, outside the checkout.
TEST_CACHE=${KVORUM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvorum-tests}

# The mirror that this machine takes Debian from: its own sources know it.
debian_mirror() {
    local mirror
    mirror=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null \
        | awk 'tolower($1) == "uris:" { print $2 }' | grep -m1 '/debian/*$' || true)
    if [ -z "$mirror" ]; then
        mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
            | sed -n 's/^deb *\(\[[^]]*\]\)\? *\([^ ]*\).*/\2/p' | grep -m1 '/debian/*$' || true)
    fi
    if [ -z "$mirror" ]; then
        echo "cannot find a Debian mirror in this machine's package sources" >&2
        return 1
    fi
    printf '%s\n' "$mirror"
}

debian_open() {
    local suite=$1 mirror
    DEBIAN_DIR=$2
    mirror=$(debian_mirror)
    mkdir -p "$DEBIAN_DIR"/state/lists/partial "$DEBIAN_DIR"/cache/archives/partial
    printf 'deb [signed-by=%s] %s %s main\n' \
        /usr/share/keyrings/debian-archive-keyring.gpg "$mirror" "$suite" \
        > "$DEBIAN_DIR/sources.list"
    : > "$DEBIAN_DIR/status"
    debian_apt apt-get update -qq
}

debian_apt() {
    local tool=$1
    shift
    "$tool" \
        -o Dir::State="$DEBIAN_DIR/state" \
        -o Dir::State::status="$DEBIAN_DIR/status" \
        -o Dir::Cache="$DEBIAN_DIR/cache" \
        -o Dir::Etc::SourceList="$DEBIAN_DIR/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null \
        -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 \
        "$@"
}

debian_unpack() {
    local root=$1 deb
    shift
    mkdir -p "$root" "$DEBIAN_DIR/debs"
    (cd "$DEBIAN_DIR/debs" && debian_apt apt-get download -qq "$@")
    for deb in "$DEBIAN_DIR"/debs/*.deb; do
        dpkg -x "$deb" "$root"
    done
    rm -rf "$DEBIAN_DIR/debs"
}
