# --- images whose layers are not, or no more, in containerd's content store -------------------------------------------

# Images whose blobs are gone from the content store have unpacked layers only. The agent has linked or copied these to
# the slot's directory while everything ran; after the restart they only need to be moved to their places.

# check_copies DIR: another installer may have cleared them.
check_copies() {
  local config chains chain
  while read -r config chains; do
    for chain in $chains; do
      [ -d "$ROOT$DATA/$COPIES/$chain" ] || die "the copy of the layer $chain of $config is gone"
    done
  done <"$1/carried"
}

# carry_over DIR: the copies become snapshots of soci.
# Until an image refers to them, ctr's own label keeps the new snapshots from containerd's garbage collection.
carry_over() {
  local config chains chain
  [ -s "$1/carried" ] || return 0
  clear_keys "$SNAPSHOTTER" carry
  while read -r config chains; do carry_image "$config" "$chains"; done <"$1/carried"
  sync -f "$ROOT$DATA"
  while read -r config chains; do
    for chain in $chains; do
      snapshots_of "$SNAPSHOTTER" label "$chain" containerd.io/gc.root= >/dev/null
    done
  done <"$1/carried"
}

# carry_image CONFIG CHAINS
carry_image() {
  local chain parent
  parent=''
  for chain in $2; do
    is_listed "$chain" "$(snapshots_of "$SNAPSHOTTER" ls)" || carry_layer "$chain" "$parent"
    parent=$chain
  done
  # Without its configuration the image was removed meanwhile, and nothing needs its layers.
  ctr --namespace k8s.io content label "$1" "containerd.io/gc.ref.snapshot.$SNAPSHOTTER=$parent" >/dev/null ||
    ! ctr --namespace k8s.io content get "$1" >/dev/null 2>&1 ||
    die "containerd does not take the layers of $1"
}

# carry_layer CHAIN PARENT
carry_layer() {
  local key mount target problem
  key=soci-cluster-carry-$TRANSACTION
  mount=$(snapshots_of "$SNAPSHOTTER" prepare --target / "$key" ${2:+"$2"}) || die "soci takes no layer on ${2:-nothing}"
  target=$(say "$mount" | upper_directory)
  problem=$(mv -T "$ROOT$DATA/$COPIES/$1" "$target" 2>&1) ||
    die "the layer $1 was not moved to $target: ${problem##*: }"
  sync "${target%/*}"
  snapshots_of "$SNAPSHOTTER" commit "$1" "$key" && return
  is_listed "$1" "$(snapshots_of "$SNAPSHOTTER" ls)" || die "soci does not take the layer $1"
  snapshots_of "$SNAPSHOTTER" rm "$key" # somebody pulled it meanwhile
}

# The directory of a new snapshot, from ctr's mount command; one without parent is a bind mount.
upper_directory() { sed -n -e 's/^mount -t bind \([^ ]*\) .*/\1/p' -e 's/.*[ ,]upperdir=\([^, ]*\).*/\1/p'; }

# What cannot be deleted now must not keep the rollback from its end; the next install tries again. First the name goes:
# no layer that is deleted in part may be taken for a copy.
clear_copies() {
  local copies
  copies=$ROOT${DATA:?}/$COPIES
  [ -d "$copies" ] || [ -d "$copies.gone" ] || return 0
  # A copy lives on when the agent is killed.
  systemctl kill --signal=KILL "$COPY_UNIT" 2>/dev/null || :
  timeout 30 systemctl stop "$COPY_UNIT" 2>/dev/null || :
  clear_keys overlayfs carry || :
  rm -rf "$copies.gone" || :
  [ ! -d "$copies" ] || mv -T "$copies" "$copies.gone" || :
  rm -rf "$copies.gone" || :
}

# clear-copies: of an install that was cut short. At a boot they stay: containerd's start does not wait for that.
clear_copies_left() {
  take_lock 60 "an install is at work"
  read_journal
  case $JOURNAL in armed | restarting) return 0 ;; esac
  in_each_slot clear_copies
}

# Images whose content is not in containerd's store: their layers were loaded lazily, or discarded once they were
# unpacked. No other snapshotter can unpack them.
incomplete_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '$4 == "incomplete" { print $1 }'
}

# The kubelet takes such an image for present, but no container of it can be made any more: it has to be pulled anew.
# Forgotten are only images that were incomplete before the change: the new daemon pulled the others. At a switch, what
# was carried over is unpacked for the new snapshotter and stays. So does the sandbox image: no kubelet pulls it.
forget_images() {
  local images
  images=$(ctr --namespace k8s.io images check --snapshotter "$SNAPSHOTTER" 2>/dev/null |
    awk -v pause="$PLAN_pause_image" '$4 == "incomplete" && $1 != pause && $NF != "true" { print $1 }' |
    grep -xF -f "$DIRECTORY/images-to-pull-again") || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $images >/dev/null || :
}
