# shellcheck shell=sh disable=SC2154 # `put` and the variables in capitals come before it
# Formats a data volume that is blank, and mounts it, now and at each boot. It never formats a disk with anything on
# it, and never hides what is in a folder.
refuse() { printf '%s\n' "$@" >&2; exit 1; }
by_id=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(printf '%s' "$VOLUME" | tr -d -)
device() {
  for d in "$by_id" /dev/xvdf /dev/sdf; do
    if [ -b "$d" ]; then readlink -f "$d"; return; fi
  done
  return 1
}
n=0
until disk=$(device); do
  n=$((n + 1))
  [ "$n" -le 240 ] || refuse "the data volume $VOLUME does not appear here; there are: $(lsblk -dnro NAME,SIZE | tr '\n' ';')" \
    "see whether it is attached as /dev/sdf: aws ec2 describe-volumes --volume-ids $VOLUME"
  sleep 0.5
done
mounted=$(findmnt -nro SOURCE --mountpoint "$MOUNT_POINT" || true)
if [ -n "$mounted" ]; then
  [ "$(readlink -f "$mounted")" = "$disk" ] ||
    refuse "$mounted is mounted on $MOUNT_POINT, and not the data volume $VOLUME ($disk)" "unmount it, or choose another postgresql.data_dir"
else
  if [ -d "$MOUNT_POINT" ]; then
    hidden=$(find "$MOUNT_POINT" -mindepth 1 -maxdepth 1 -print | head -n 5 | tr '\n' ' ')
    [ -z "$hidden" ] || refuse "$MOUNT_POINT is not empty, and the data volume would hide what is in it: $hidden" \
      "move it away; if it is PostgreSQL's, it began without its disk, and its members have the same data: pgherd replace $HOST"
  fi
  # A run may be killed while it formats: then only this note says that nothing was on the disk.
  note=/var/lib/pgherd/formatting
  if [ "$(cat "$note" 2>/dev/null)" != "$VOLUME" ]; then
    content=$(blkid -p -o export "$disk" 2>/dev/null) && code=0 || code=$?
    signatures=$(wipefs -np "$disk" | grep -v '^#' || true)
    if [ "$code" = 2 ] && [ -z "$signatures" ] && cmp -s -n 1048576 "$disk" /dev/zero; then
      mkdir -p /var/lib/pgherd
      echo "$VOLUME" | put "$note" root:root 0600
    elif ! printf '%s\n' "$content" | grep -qx TYPE=ext4 || ! printf '%s\n' "$content" | grep -qx LABEL=pgherd-data; then
      refuse "the data volume $VOLUME ($disk) is not blank, and pgherd did not make what is on it:" "${content:-$signatures}" \
        "nothing was written to it; if it may go, clear it (sudo wipefs -a $disk; sudo dd if=/dev/zero of=$disk bs=1M count=1), and run the same command again"
    fi
  fi
  if [ "$(cat "$note" 2>/dev/null)" = "$VOLUME" ]; then
    mkfs.ext4 -qF -L pgherd-data -m 1 "$disk"
    sync "$disk"
    rm -f "$note"
  fi
fi
udevadm settle --timeout=10 2>/dev/null || true
what=/dev/disk/by-uuid/$(blkid -p -o value -s UUID "$disk")
for w in "$what" "$by_id" "$disk"; do
  if [ -e "$w" ]; then what=$w; break; fi
done
unit=$(systemd-escape -p --suffix=mount "$MOUNT_POINT")
put "/etc/systemd/system/$unit" root:root 0644 <<UNIT
# Written by pgherd.

[Unit]
Description=The data volume of PostgreSQL
Before=patroni.service

[Mount]
What=$what
Where=$MOUNT_POINT
Type=ext4
Options=nodev,nosuid

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet "$unit"
systemctl start "$unit"
mountpoint -q "$MOUNT_POINT" || refuse "$unit has started, but nothing is mounted on $MOUNT_POINT"
# Patroni renames the data directory.
chown postgres:postgres "$MOUNT_POINT"
chmod 0755 "$MOUNT_POINT"
# On another system, the same user may have another number.
if [ "$(cat "$DATA_DIR.pgherd" 2>/dev/null)" = "$CLUSTER_ID" ] && [ -d "$DATA_DIR" ] &&
  [ "$(stat -c %u "$DATA_DIR")" != "$(id -u postgres)" ]; then
  chown -Rh postgres:postgres "$DATA_DIR"
fi
# The volume may be larger than it was.
said=$(resize2fs "$disk" 2>&1) ||
  refuse "the file system on $disk does not grow to the size of the data volume $VOLUME:" "$said"
