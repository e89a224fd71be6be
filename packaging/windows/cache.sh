# Sourced by the scripts around it: where what takes long to make is kept, and a few words they share.
#
# SOFTLAN_WINDOWS_CACHE   the directory; default: softlan/windows in the user's cache directory. Safe to delete at any time.

windows_cache=${SOFTLAN_WINDOWS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/softlan/windows}
mkdir -p "$windows_cache"
windows_cache=$(cd "$windows_cache" && pwd)
windows_target=x86_64-pc-windows-gnu

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}
need() { command -v "$1" >/dev/null || fail "$1 is not installed" "$2"; }

# Runs the rest of the script alone: two builds of one thing at a time would spoil each other. $1: a name for the lock.
alone() {
    exec 9>"$windows_cache/$1.lock"
    flock 9
}
