#!/usr/bin/env bash
# Makes a machine ready for `make test`: names or installs the tools that are missing, and fetches the servers and the
# readers of the end-to-end tests into ${FS_DATA_SINK_CACHE:-~/.cache/fs-data-sink}. Does nothing where all is there.
#
#   tests/setup.sh            everything
#   tests/setup.sh build      only the tools that a build needs
#   tests/setup.sh soak       everything, and what only `make soak` needs
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${FS_DATA_SINK_CACHE:-$HOME/.cache/fs-data-sink}
what=${1:-all}

# What is missing, as Debian packages: installed where we are root and apt is there, else named in one message.
missing=()
need() { # a command that works, the Debian package that has it
  local package=$1; shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
java_is_new_enough() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1)
  [ "${version:-0}" -ge 17 ]
}
look() {
  missing=()
  need gcc cc --version
  need g++ c++ --version        # librdkafka's configure asks for it
  need make make --version
  need perl perl -MFindBin -MIPC::Cmd -e 1     # OpenSSL's configure
  [ "$what" = build ] && return 0
  need openjdk-17-jre-headless java_is_new_enough
  need openssl openssl version
  need maven mvn --version
  need python3-venv python3 -c 'import venv, ensurepip'
  need redis-server redis-server --version
  need docker-registry sh -c 'command -v docker-registry'   # plugins that are downloaded
  need krb5-user sh -c 'command -v kinit'        # Kafka with Kerberos
  need iproute2 sh -c 'command -v ip'            # escapes are tried in a network of their own
  need util-linux unshare --version
  need libgssapi-krb5-2 python3 -c 'import ctypes; ctypes.CDLL("libgssapi_krb5.so.2")'   # HDFS with Kerberos
}

look
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/fs-data-sink-apt.$$ 2>&1 \
    || tail -5 /tmp/fs-data-sink-apt.$$ >&2
  rm -f /tmp/fs-data-sink-apt.$$
  hash -r
  look
fi
command -v cargo >/dev/null || missing+=("Rust (https://rustup.rs)")
if [ ${#missing[@]} -gt 0 ]; then
  {
    echo "setup: this machine lacks: ${missing[*]}"
    echo "setup: on Debian or Ubuntu, as root: apt-get install ${missing[*]}"
    echo "setup: elsewhere install what corresponds (Java 17 or newer, Maven, Python 3.10 or newer with venv,"
    echo "setup: C and C++ compilers, make, perl), then start again."
  } >&2
  exit 1
fi
[ "$what" = build ] && exit 0

# A piece is fetched again only when its description changed; a piece that was left half done is not taken for whole.
piece() { # name, file that describes it, function that fills the folder given to it
  local name=$1 description=$2 fill=$3 stamp folder log
  stamp=$(cksum <"$description" | tr ' ' '-')
  folder=$cache/$name
  [ -e "$folder/.complete-$stamp" ] && return 0
  echo "setup: fetching $name"
  mkdir -p "$cache"
  rm -rf "$folder"
  log=$cache/$name.log
  if ! "$fill" "$folder" "$description" >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "setup: $name could not be fetched; the whole output is in $log. Is the network there? Then start again." >&2
    exit 1
  fi
  touch "$folder/.complete-$stamp"
}
fill_jars() {
  mkdir -p "$1"
  cp "$2" "$1/pom.xml"
  (cd "$1" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime)
}
fill_python() {
  python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
}

# A schema registry; the last Apicurio that runs on Java 17. Its own description names a parent that is not to be had, so it is copied alone.
fill_registry() {
  mkdir -p "$1/app"
  mvn -q -B dependency:copy -Dartifact="$(cat "$2")" -DoutputDirectory="$1"
  tar -xzf "$1"/*.tar.gz -C "$1/app"
  rm "$1"/*.tar.gz
}

fill_azurite() {
  mkdir -p "$1"
  cp "$2" "$1/package.json"
  (cd "$1" && npm install --no-audit --no-fund --omit=dev --omit=optional --ignore-scripts)
}

fill_componentize_js() {
  mkdir -p "$1"
  cp "$2" "$1/package.json"
  (cd "$1" && npm install --no-audit --no-fund)
}

# What compiles plugins in C and in Go, where Debian's packages have it.
fill_packages() { # what is said without, the package that has to be of a version, which, and all packages
  local said=$1 first=$2 version=$3 found; shift 3
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    found=$(apt-cache policy "$first" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p')
    [ -z "$found" ] && apt-get update -qq >/dev/null 2>&1 \
      && found=$(apt-cache policy "$first" | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p')
    if [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$version" "$found" | sort -V | head -1)" = "$version" ]; then
      echo "setup: installing $*"
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    fi
  fi
  echo "setup: without $said is left out (Debian's packages: $*)"
}

# Side by side with another `make test` on this machine: one fetches, the other waits.
mkdir -p "$cache"
exec 9>"$cache/setup.lock"
flock 9
[ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && echo "setup: tests use Kafka at $KAFKA_BOOTSTRAP_SERVERS (those that stop a broker start their own)"
[ -n "${S3_ENDPOINT_URL:-}" ] && echo "setup: tests use S3 at $S3_ENDPOINT_URL"
piece kafka "$here/kafka-pom.xml" fill_jars
piece hdfs "$here/hdfs-pom.xml" fill_jars
piece registry "$here/registry.txt" fill_registry
"$cache/python/bin/python" -c '' 2>/dev/null || rm -rf "$cache/python"     # its interpreter may be gone
piece python "$here/python/requirements.txt" fill_python
[ "$what" != soak ] || piece spark "$here/python/spark.txt" fill_python
# Confluent's own serializers: many packages, of which one may be missing; the test says so then.
( piece confluent "$here/python/confluent.txt" fill_python ) || echo "setup: without Confluent's serializers; their test is left out"
# What makes components of plugins in Python.
( piece componentize "$here/python/componentize.txt" fill_python ) || echo "setup: without componentize-py; the test of plugins in Python is left out"
# An Azure Blob Storage for the tests, where there is Node; they say so where there is none.
if command -v node >/dev/null && command -v npm >/dev/null; then
  piece azurite "$here/azurite.json" fill_azurite
  # What makes components of plugins in JavaScript; its packages run scripts of their own to fetch programs.
  ( piece componentize-js "$here/componentize-js.json" fill_componentize_js ) || echo "setup: without componentize-js; the test of plugins in JavaScript is left out"
else
  echo "setup: without node and npm there is no Azurite and no componentize-js; the tests of Azure and of plugins in JavaScript are left out"
fi
[ -f /usr/lib/wasm32-wasi/libc.a ] || [ -n "${WASI_SDK_PATH:-}" ] \
  || fill_packages "a C compiler for WebAssembly the test of plugins in C" clang-19 19 clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32
go_is_new_enough() {
  local version
  version=$(go env GOVERSION 2>/dev/null)
  [ "$(printf 'go1.24\n%s\n' "${version:-go0}" | sort -V | head -1)" = go1.24 ]
}
go_is_new_enough || fill_packages "Go 1.24 the test of plugins in Go" golang-go 1.24 golang-go
