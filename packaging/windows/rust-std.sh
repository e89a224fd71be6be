#!/usr/bin/env bash
# Makes Rust's standard library for Windows available to the Rust compiler of this machine, and prints the directory that has to stand first
# on PATH for it (an empty line when none has to).
#
# Two ways, the first that works:
#   rustup   the target is installed, or `rustup target add` gets it. A public CI and most machines.
#   source   where no rustup target can be had: std is built from Debian's `rust-src` package of the very same compiler version, for which
#            the machine needs apt and Debian's archive key. The compiler is the one that is installed, in a copy made of hard links.
#
# SOFTLAN_RUST_STD=rustup|source   insist on one way.
# SOFTLAN_RUST_SRC=DIR             the standard library's sources (a directory with library/std in it), in place of Debian's package.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=packaging/windows/cache.sh
. "$here/cache.sh"

# The suites of Debian that may carry the compiler's version. They are only read: nothing is installed from them.
suites="trixie-backports sid"

way=${SOFTLAN_RUST_STD:-any}
need rustc "the Rust toolchain, 1.88 or newer"
version=$(rustc --version | cut -d' ' -f2)

has_target() { [ -n "$(find "$(rustc --print target-libdir --target "$windows_target")" -name 'libstd-*.rlib' 2>/dev/null)" ]; }

if [ "$way" != source ]; then
    if has_target; then
        echo
        exit 0
    fi
    if command -v rustup >/dev/null && timeout 120 rustup target add "$windows_target" >&2 && has_target; then
        echo
        exit 0
    fi
    [ "$way" = any ] || fail "rustup has no standard library for $windows_target" "SOFTLAN_RUST_STD=source builds it from Debian's rust-src"
    say "no rustup target to be had: building the standard library"
fi

alone rust-std
toolchain=$windows_cache/rust-$version
if [ -e "$toolchain/.complete" ]; then
    echo "$toolchain/bin"
    exit 0
fi

# Downloads rust-src of version $version and unpacks it into $1. apt checks the signatures; its lists are private to the cache, so that the
# machine's own sources stay as they are.
unpack_debian_source() {
    need apt-get "SOFTLAN_RUST_SRC names a directory with the standard library's sources"
    local apt=$windows_cache/apt mirror key package
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -1)
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -n "$mirror" ] && [ -e "$key" ] || fail "this machine's apt knows no Debian archive" "SOFTLAN_RUST_SRC names a directory with the sources"
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/parts"
    for suite in $suites; do
        printf 'deb [signed-by=%s] %s %s main\n' "$key" "$mirror" "$suite" >"$apt/sources.list"
        options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
            -o "Dir::Cache=$apt" -o "Acquire::Languages=none" -o "APT::Sandbox::User=root" -o "APT::Architecture=amd64" -qq)
        say "looking for rust-src $version in Debian's $suite"
        apt-get "${options[@]}" update >&2 || continue
        package=$(apt-cache "${options[@]}" madison rust-src | cut -d'|' -f2 | tr -d ' ' | grep "^$version" | head -1) || true
        [ -n "$package" ] || continue
        (cd "$apt" && apt-get "${options[@]}" download "rust-src=$package" >&2)
        dpkg-deb -x "$apt"/rust-src_*.deb "$1"
        rm -rf "$apt"
        return
    done
    fail "Debian ($suites) has no rust-src of version $version" "use another compiler version, or SOFTLAN_RUST_SRC"
}

work=$windows_cache/rust-$version.partial
rm -rf "$work" "$toolchain"
mkdir -p "$work"
if [ -n "${SOFTLAN_RUST_SRC:-}" ]; then
    source=$(cd "$SOFTLAN_RUST_SRC" && pwd)
else
    unpack_debian_source "$work/src"
    source=$work/src/usr/src/rustc-$version
fi
[ -d "$source/library/std" ] || fail "$source has no library/std"

sysroot=$(rustc --print sysroot)
# Hard links where both are on one file system: the copy then costs no space.
cp -al "$sysroot" "$work/toolchain" 2>/dev/null || { rm -rf "$work/toolchain" && cp -a "$sysroot" "$work/toolchain"; }
# Its own sources and, where rustup has it after all, its own library for Windows: two would contradict each other.
rm -rf "$work/toolchain/lib/rustlib/src" "$work/toolchain/lib/rustlib/$windows_target"
mkdir -p "$work/toolchain/lib/rustlib/src"
ln -s "$source" "$work/toolchain/lib/rustlib/src/rust"

# An empty crate makes cargo build the library alone. From then on the copy is a plain stable toolchain that knows one target more.
mkdir -p "$work/empty/src"
printf '#![no_std]\n' >"$work/empty/src/lib.rs"
cat >"$work/empty/Cargo.toml" <<'TOML'
[package]
name = "softlan_empty"
version = "0.0.0"
edition = "2024"

[workspace]

[profile.release]
debug = 0
TOML
say "building Rust's standard library for $windows_target"
(
    cd "$work/empty"
    unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS
    PATH=$work/toolchain/bin:$PATH RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cembed-bitcode=yes -Zforce-unstable-if-unmarked" \
        cargo build -q --release --target "$windows_target" -Zbuild-std=std,panic_unwind,panic_abort,proc_macro,test >&2
)
lib=$work/toolchain/lib/rustlib/$windows_target/lib
mkdir -p "$lib"
find "$work/empty/target/$windows_target/release/deps" -name '*.rlib' ! -name '*softlan_empty*' -exec cp {} "$lib" \;
rm -rf "$work/toolchain/lib/rustlib/src"
mv "$work/toolchain" "$toolchain"
rm -rf "$work"
touch "$toolchain/.complete"
echo "$toolchain/bin"
