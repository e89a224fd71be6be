#!/usr/bin/env bash
# Builds the win_amd64 wheel on Linux, and prints its path: `build-wheel.sh [OUT-DIRECTORY]` (default: dist).
#
# Needs: Rust, maturin (1.9 or newer; the one of .venv is used if there is one), gcc-mingw-w64-x86-64. Rust's standard library for Windows
# comes from rustup, or is built where rustup has none: rust-std.sh says how.
#
# On a Windows machine none of this should be needed: `maturin build --release` is all there is to it. Nobody has tried yet.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=packaging/windows/cache.sh
. "$here/cache.sh"

out=${1:-$root/dist}
maturin=$root/.venv/bin/maturin
[ -x "$maturin" ] || maturin=maturin
need "$maturin" "pip install 'maturin>=1.9,<2'"
need x86_64-w64-mingw32-gcc "apt-get install --no-install-recommends gcc-mingw-w64-x86-64"

toolchain=$("$here/rust-std.sh")
[ -z "$toolchain" ] || PATH=$toolchain:$PATH
export PATH
export CC_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc AR_x86_64_pc_windows_gnu=x86_64-w64-mingw32-ar
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc

mkdir -p "$out"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
say "building the wheel for $windows_target"
cd "$root"
# abi3: any CPython from 3.11 on; the interpreter's import library is generated (feature `generate-import-lib`), no Windows Python is needed.
"$maturin" build -q --release --target "$windows_target" -i python3.11 --features extension-module,generate-import-lib --out "$made" >&2
wheel=$(ls "$made"/softlan-*-win_amd64.whl)
mv "$wheel" "$out/"
echo "$out/$(basename "$wheel")"
