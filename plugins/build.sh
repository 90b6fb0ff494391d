#!/usr/bin/env bash
# Builds the example plugins into plugins/dist/*.wasm, in one of two worlds:
#
#   rustup   the target wasm32-wasip2 of the pinned toolchain, fetched if it can be: cargo gives a component at once
#   debian   Debian's rustc-web, cargo-web and rust-web-src with -Zbuild-std for wasm32-unknown-unknown, where rustup can
#            fetch nothing; the crate plugins/componentize makes components of what comes out
#
# FS_DATA_SINK_PLUGIN_TOOLCHAIN=rustup|debian chooses; otherwise the first that works.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${FS_DATA_SINK_CACHE:-$HOME/.cache/fs-data-sink}
wanted=${FS_DATA_SINK_PLUGIN_TOOLCHAIN:-}
crates=(keep-values parse-user-agent enrich-lookup count-windows hostile hostile-lookup hostile-state)
packages=(); for crate in "${crates[@]}"; do packages+=(--package "$crate"); done

has_rustup_target() {
  command -v rustup >/dev/null || return 1
  rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2 || timeout 120 rustup target add wasm32-wasip2 >/dev/null 2>&1
}
has_debian_packages() {
  [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d /usr/src ] && dpkg -s rust-web-src >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends rustc-web cargo-web rust-web-src; } >/dev/null 2>&1
}

if [ "$wanted" != debian ] && has_rustup_target; then
  echo "plugins: building with rustup's target wasm32-wasip2"
  export CARGO_TARGET_DIR=$cache/plugins
  cargo build --locked --profile plugin --target wasm32-wasip2 "${packages[@]}"
  out=$CARGO_TARGET_DIR/wasm32-wasip2/plugin
  componentize=(cp)
elif [ "$wanted" != rustup ] && has_debian_packages; then
  echo "plugins: building with Debian's rustc-web, cargo-web and rust-web-src (-Zbuild-std, wasm32-unknown-unknown)"
  componentizer_target=${CARGO_TARGET_DIR:-$cache/target}
  CARGO_TARGET_DIR=$componentizer_target cargo build --locked --package componentize
  linker=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
  export CARGO_TARGET_DIR=$cache/plugins-debian
  env -u RUSTUP_TOOLCHAIN RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    /usr/bin/cargo build --locked -Zbuild-std=std,panic_abort --profile plugin --target wasm32-unknown-unknown "${packages[@]}"
  out=$CARGO_TARGET_DIR/wasm32-unknown-unknown/plugin
  componentize=("$componentizer_target/debug/componentize")
else
  echo "plugins: neither rustup can fetch the target wasm32-wasip2 (rustup target add wasm32-wasip2), nor are Debian's" >&2
  echo "plugins: packages there (as root: apt-get install rustc-web cargo-web rust-web-src)" >&2
  exit 1
fi

mkdir -p plugins/dist
for crate in "${crates[@]}"; do
  file=${crate//-/_}.wasm
  "${componentize[@]}" "$out/$file" "plugins/dist/$file.new"
  mv "plugins/dist/$file.new" "plugins/dist/$file"
  printf 'plugins: plugins/dist/%s, %s bytes\n' "$file" "$(wc -c <"plugins/dist/$file")"
done
