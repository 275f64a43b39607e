#!/usr/bin/env bash
# Boots Debian 12's own kernel (6.1, cgroup v2) under QEMU and runs forge there, as root and as an ordinary user: what most users have.
#
#   benchmarks/vm/run.sh FORGE [KERNEL_DEB]
#
# Needs qemu-system-x86_64, busybox (static) and cpio; without KERNEL_DEB, apt-get downloads the kernel. KVM is not needed (and not
# used): QEMU's own processor takes a minute. Exits with 0 if everything passed.
set -euo pipefail
forge=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
for program in qemu-system-x86_64 busybox cpio dpkg-deb; do
  command -v $program >/dev/null || { echo "skipped: no $program (apt-get install qemu-system-x86 busybox-static cpio)"; exit 0; }
done
if file -b "$forge" 2>/dev/null | grep -q dynamically; then echo "forge is linked dynamically: nothing else is in the machine"; exit 2; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# -gt 1 ]; then
  deb=$(realpath "$2")
else
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  (cd "$work" && apt-get download -qq "$package")
  deb=$(echo "$work"/*.deb)
fi
dpkg-deb -x "$deb" "$work/kernel"

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,root,home/user,modules,new}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$forge" "$root/bin/forge"
cp "$here/init" "$here/tests" "$root/"
for module in fs/overlayfs/overlay fs/squashfs/squashfs drivers/block/loop; do
  cp "$work"/kernel/lib/modules/*/kernel/$module.ko "$root/modules/"
done
printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"
# What is run: a root of busybox.
mkdir -p "$root/tree/bin" "$root/tree/etc"
cp "$root/bin/busybox" "$root/tree/bin/"
for applet in sh cat echo id sleep dd head tail true ls mount kill hostname; do ln -s busybox "$root/tree/bin/$applet"; done
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"

# A boot that gets stuck is started again: it happens on busy machines.
for attempt in 1 2 3; do
  timeout 400 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 1536 -nographic -no-reboot -nic none \
    -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" </dev/null >"$work/console" 2>&1 || true
  tr -d '\r' <"$work/console" | grep -E '^(PASS|FAIL|INFO|DONE)' >"$work/result" || true
  grep -q '^DONE' "$work/result" && break
  echo "attempt $attempt: the machine did not come to its end" >&2
  tail -5 "$work/console" >&2
done
cat "$work/result"
grep -q '^DONE' "$work/result" && ! grep -q '^FAIL' "$work/result"
