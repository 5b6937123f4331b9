#!/bin/sh
# libcrypto.a and its headers, of the OpenSSL named here, for wheels that carry their SHA-256 with them
# (decision 36). cibuildwheel runs it in its image, whose own OpenSSL is old and only shared.
# libcrypto.sh FOLDER   FOLDER/include and FOLDER/lib are for CFLAGS and LDFLAGS.
#
# To use another version, put its number and its checksum here: then wheels are built anew with it.
set -eu
version=3.5.9
sha256=603f5602e2eef00d77fbd429d34dcd5822bb301757a1bc9cdb24c670f1eb859a
prefix=$1
url=${OPENSSL_URL:-https://github.com/openssl/openssl/releases/download/openssl-$version/openssl-$version.tar.gz}

if command -v yum >/dev/null; then
    yum -qy install perl-core >/dev/null # which OpenSSL is configured with
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
curl -fsSL -o openssl.tar.gz "$url"
echo "$sha256  openssl.tar.gz" | sha256sum -c -
tar -xzf openssl.tar.gz --strip-components=1
{
    ./Configure --prefix="$prefix" --libdir=lib no-shared no-module no-tests no-apps no-docs &&
        make -s build_generated && make -sj"$(nproc)" libcrypto.a
} >build.log 2>&1 || { cat build.log; exit 1; }
mkdir -p "$prefix/lib"
cp libcrypto.a "$prefix/lib/"
cp -r include "$prefix/"
