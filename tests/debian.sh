# Sourced by the scripts beside it: fetches packages of Debian into folders of our own. Nothing is
# installed into the system, and the system's own package lists stay as they are.

# Where everything that tests fetch or build once is kept, outside the checkout.
cache=${KVORUM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvorum-tests}
mkdir -p "$cache"

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is needed ($2)"; }

# apt with its own state: lists, cache and status below $1, sources from the file $1/sources.list
# or, where there is none, the machine's own sources.
private_apt() {
    local root=$1 command=$2
    shift 2
    mkdir -p "$root"/{lists/partial,archives/partial,empty}
    touch "$root/status"
    local options=(
        -o "Dir::State=$root" -o "Dir::State::lists=$root/lists" -o "Dir::State::status=$root/status"
        -o "Dir::Cache=$root" -o "Dir::Cache::archives=$root/archives"
        -o "Acquire::Languages=none" -o "Acquire::Retries=3" -o "APT::Get::List-Cleanup=false"
        -o "Debug::NoLocking=true" -o "quiet=1"
        # Hooks of the machine's own configuration are not meant for us.
        -o "APT::Update::Post-Invoke=" -o "APT::Update::Post-Invoke-Success="
    )
    if [[ $(id -u) == 0 ]]; then
        options+=(-o "APT::Sandbox::User=root")
    fi
    if [[ -f $root/sources.list ]]; then
        options+=(-o "Dir::Etc::sourcelist=$root/sources.list" -o "Dir::Etc::sourceparts=$root/empty"
            -o "Dir::Etc::preferences=$root/none" -o "Dir::Etc::preferencesparts=$root/empty")
    fi
    "apt-$command" "${options[@]}" "$@"
}

# The machine's own sources, read into private lists: its own may be empty, as in a container.
own_apt=$cache/apt-own
own_lists() {
    [[ -n ${own_lists_read:-} ]] && return
    own_lists_read=yes
    private_apt "$own_apt" get update >&2 || say "some of the machine's apt sources cannot be read; going on"
}

# The repositories that the machine itself uses, from sources.list and sources.list.d in both
# formats (apt parses them for us), those that look like Debian's own archive first.
machine_mirrors() {
    private_apt "$own_apt" get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk '$3 == "main" && $2 !~ /security|updates|backports/ && !seen[$1]++ {
                 print ($1 ~ /\/debian\/?$/) ? 0 : 1, $1
             }' | sort -s -n -k1,1 | cut -d' ' -f2-
}

# Points the private apt below $1 at suite $3 of the repository $2, and reads its lists.
use_suite() {
    local root=$1 uri=$2 suite=$3 signed=""
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -f $keyring ]] && signed="[signed-by=$keyring] "
    mkdir -p "$root"
    printf 'deb %s%s %s main\n' "$signed" "$uri" "$suite" >"$root/sources.list"
    private_apt "$root" get update >&2
}

# Unpacks every package in $1 into $2.
unpack() {
    local deb
    for deb in "$1"/*.deb; do
        dpkg -x "$deb" "$2"
    done
}
