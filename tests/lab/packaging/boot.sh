#!/bin/sh
# Boots systemd in namespaces of its own, with the units of a folder and nothing else: `boot.sh FOLDER`. In the folder are
# units/, the program gatepost and gatepost.toml. It ends with the process that unshare(1) made, and so does all that it started.
set -eu
folder=$1

if [ "${2-}" != inside ]; then
  # Control groups of its own, too: systemd takes those of its root for its own.
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    group=$hierarchy/${folder##*/}
    [ -e "$hierarchy/cgroup.procs" ] && mkdir "$group" 2>/dev/null && echo $$ >"$group/cgroup.procs" 2>/dev/null || true
  done
  exec unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup sh "$0" "$folder" inside
fi

mount --make-rprivate /
mount -t proc proc /proc
for place in /run /var/lib /var/log; do mount -t tmpfs tmpfs $place; done
mount --bind "$folder/units" /lib/systemd/system
# The program, its configuration and its user are where the unit looks for them, and nothing is made on the host.
mkdir "$folder/bin" && mv "$folder/gatepost" "$folder/bin"
mkdir -p "$folder/etc/gatepost"
cp /etc/passwd /etc/group "$folder/etc"
sed -i /^gatepost:/d "$folder/etc/passwd" "$folder/etc/group"
echo 'gatepost:x:65533:65533::/nonexistent:/usr/sbin/nologin' >>"$folder/etc/passwd"
echo 'gatepost:x:65533:' >>"$folder/etc/group"
mount -t overlay overlay -o "lowerdir=$folder/bin:/usr/bin" /usr/bin
mount -t overlay overlay -o "lowerdir=$folder/etc:/etc" /etc
# No services of the host either, of whatever age.
for place in /etc/systemd/system /etc/init.d; do mount -t tmpfs tmpfs $place; done
mount --bind "$folder" /etc/gatepost
# Last: the folder is there.
for place in /tmp /var/tmp; do mount -t tmpfs tmpfs $place; done
ip link set lo up
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=console --unit=basic.target
