#!/bin/sh
# Makes a base image for bellglass's Dockerfile from a Debian mirror, for machines that reach no image registry.
#
#     sandbox/base_image.sh [NAME]              default NAME: bellglass-base:bookworm
#     bellglass image build --base NAME
#
# Needs: Linux, root (chroot and mknod), debootstrap, tar, the docker command, a Debian mirror, about 500 MB in $TMPDIR.
# Does: debootstrap of Debian 12 with Python 3.11 into a temporary folder, then `docker import`. About 150 MB of download,
# 1-3 minutes, 230 MB of image. Does nothing when the image is there already (FORCE=1 makes it again).
#
# DEBIAN_MIRROR  another mirror than http://deb.debian.org/debian
set -eu

name=${1:-bellglass-base:bookworm}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm

fail() { echo "base_image: $1; needed: $2; next: $3" >&2; exit 3; }

case ${1:-} in -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
command -v docker >/dev/null || fail "no docker command" "Docker's client" "apt-get install docker.io"
docker info >/dev/null 2>&1 || fail "the Docker daemon does not answer" "a running daemon you may use" "docker info"
if [ "${FORCE:-0}" != 1 ] && docker image inspect "$name" >/dev/null 2>&1; then
    echo "base_image: $name is there already (FORCE=1 makes it again)"
    exit 0
fi
command -v debootstrap >/dev/null || fail "no debootstrap" "debootstrap" "apt-get install debootstrap"
[ "$(id -u)" = 0 ] || fail "not root" "root, for chroot" "sudo $0 $name"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
echo "base_image: $suite from $mirror into $name: about 150 MB to download, 1-3 minutes"
if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/root" "$mirror" \
    >"$work/log" 2>&1; then
    tail -n 5 "$work/log" >&2
    fail "debootstrap failed" "a reachable Debian mirror" "DEBIAN_MIRROR=http://... $0 $name"
fi
rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists" "$work/root/usr/share/doc" "$work/root/usr/share/man" \
    "$work/root/usr/share/locale" "$work/root/var/log"
mkdir -p "$work/root/var/cache/apt/archives/partial" "$work/root/var/lib/apt/lists/partial" "$work/root/var/log/apt"
tar -C "$work/root" --numeric-owner -c . |
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$name" >/dev/null
echo "base_image: made $name ($(docker image inspect --format '{{.Size}}' "$name" | awk '{printf "%.0f MB", $1 / 1e6}'))"
