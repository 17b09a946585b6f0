#!/bin/sh
# Makes the root file system of the image: the observer, the libraries that it loads, and what the
# C library needs to resolve names and the observer to trust the API server. On Debian, as any user.
#
#     deploy/rootfs.sh BINARY DESTINATION
set -eu

binary=$1
destination=$2

mkdir -p "$destination/etc/ssl/certs" "$destination/usr/bin" "$destination/state" "$destination/tmp"

install -m 755 "$binary" "$destination/usr/bin/observer"
# Debug information would be most of the image; a bug report's backtrace still has names.
strip --strip-debug "$destination/usr/bin/observer"

# Each library, and the loader, by the path under which it is looked for.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$destination$library"
done

# Since 2.34 glibc itself reads hosts files and asks DNS servers; what else nsswitch.conf could name
# is not here.
echo 'hosts: files dns' > "$destination/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/sbin/nologin' > "$destination/etc/passwd"
echo 'root:x:0:' > "$destination/etc/group"

# Of kubeconfigs whose API server has a public certificate; in a cluster its own is mounted.
install -m 644 /etc/ssl/certs/ca-certificates.crt "$destination/etc/ssl/certs/ca-certificates.crt"
