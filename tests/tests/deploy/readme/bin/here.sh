# Sourced: what a file of a guide says, with addresses and paths as they are here.
here() {
    sed -e "s#127\.0\.0\.1#$LOCAL_ADDRESS#g" -e "s#10\.0\.0\.#$NETWORK#g" -e "s#\([= ]\)/\(etc\|var\|usr\)/#\1$ROOT/\2/#g" "$1"
}
