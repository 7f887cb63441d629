# --- images whose layers are not, or no more, in containerd's content store -------------------------------------------

# snapshots_of SNAPSHOTTER ARGUMENT...
snapshots_of() {
  of=$1
  shift
  ctr --namespace k8s.io snapshots --snapshotter "$of" "$@"
}

# copy_layers DIR: images whose blobs are gone from the content store have unpacked layers only. These are brought to
# the slot's directory while everything still runs; after the restart they only need to be moved to their places.
copy_layers() {
  [ -s "$1/layers" ] || return 0
  clear_copies
  while read -r config chains; do copy_image; done <"$1/layers"
  sync -f "$ROOT$data"
}

copy_image() {
  key=soci-cluster-carry-$transaction
  mount=$(snapshots_of overlayfs view --target / "$key" "${chains##* }") || die "no layers to carry over: ${chains##* }"
  snapshots_of overlayfs rm "$key" 2>/dev/null || : # garbage collection may have been faster
  sources=$(say "$mount" | mount_folders lowerdir) # separated by colons, the lowest last
  for chain in $chains; do
    copy=$ROOT$data/$COPIES/$chain
    if [ ! -d "$copy" ]; then
      mkdir -p "$copy"
      # Hard links need no space and no time, but work below one mount point only. Lower layers never change.
      cp -al "${sources##*:}/." "$copy" 2>/dev/null ||
        problem=$(cp -a --remove-destination "${sources##*:}/." "$copy" 2>&1) ||
        die "the layer $chain was not copied to $copy: ${problem##*: }"
    fi
    sources=${sources%:*}
  done
}

# carry_over DIR: the copies become snapshots of soci.
# Until an image refers to them, ctr's own label keeps the new snapshots from containerd's garbage collection.
carry_over() {
  [ -s "$1/layers" ] || return 0
  for key in $(snapshots_of "$snapshotter" ls | awk '$1 ~ /^soci-cluster-carry-/ { print $1 }'); do snapshots_of "$snapshotter" rm "$key"; done
  while read -r config chains; do carry_image; done <"$1/layers"
  sync -f "$ROOT$data"
  while read -r config chains; do
    for chain in $chains; do
      snapshots_of "$snapshotter" label "$chain" containerd.io/gc.root= >/dev/null
    done
  done <"$1/layers"
}

carry_image() {
  key=soci-cluster-carry-$transaction
  parent='' there=$(snapshots_of "$snapshotter" ls | awk '{ print $1 }')
  for chain in $chains; do
    if ! printf '%s\n' "$there" | grep -qxF "$chain"; then
      mount=$(snapshots_of "$snapshotter" prepare --target / "$key" ${parent:+"$parent"}) || die "soci takes no layer on ${parent:-nothing}"
      target=$(say "$mount" | mount_folders upperdir)
      problem=$(mv -T "$ROOT$data/$COPIES/$chain" "$target" 2>&1) ||
        die "the layer $chain was not moved to $target: ${problem##*: }"
      snapshots_of "$snapshotter" commit "$chain" "$key"
    fi
    parent=$chain
  done
  ctr --namespace k8s.io content label "$config" "containerd.io/gc.ref.snapshot.$snapshotter=$parent" >/dev/null
}

clear_copies() { rm -rf "$ROOT${data:?}/$COPIES"; }

# mount_folders OPTION: the directories of a snapshot, from ctr's mount command; one without parent is a bind mount.
mount_folders() { sed -n -e 's/^mount -t bind \([^ ]*\) .*/\1/p' -e "s/.*[ ,]$1=\([^, ]*\).*/\1/p"; }

# Images whose content is not on the node, neither in containerd's store nor, therefore, to be unpacked by another
# snapshotter: their layers were loaded lazily, or discarded once they were unpacked.
incomplete_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '$4 == "incomplete" { print $1 }'
}

# The kubelet takes such an image for present, but no container of it can be made any more: it has to be pulled anew.
# Those are meant that were incomplete before the change already; later ones were pulled by the new daemon. At a switch
# what was carried over is unpacked for the new snapshotter and stays.
forget_images() {
  images=$(ctr --namespace k8s.io images check --snapshotter "$snapshotter" 2>/dev/null |
    awk -v is_switch="$is_switch" '$4 == "incomplete" && !(is_switch && $NF == "true") { print $1 }' |
    grep -xF -f "$directory/images-to-pull-again") || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $images >/dev/null || :
}
