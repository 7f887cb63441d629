# --- images whose layers are not, or no more, in containerd's content store -------------------------------------------

# copy_layers DIR: images whose blobs are gone from the content store have unpacked layers only. These are brought to
# the slot's directory while everything still runs; after the restart they only need to be moved to their places.
# An image of which that cannot be done is left out, and with it forgotten at the switch: DIR/carried has the others.
copy_layers() {
  clear_copies
  : >"$1/carried"
  [ -s "$1/layers" ] || return 0
  # Nobody but root may look into layers, or run what is in them (containerd's CVE-2021-41103).
  [ -d "$ROOT$data" ] || mkdir -m 0711 "$ROOT$data"
  mkdir -m 0700 "$ROOT$data/$COPIES"
  while read -r config chains; do copy_image "$1"; done <"$1/layers"
  sync -f "$ROOT$data"
}

copy_image() {
  key=soci-cluster-carry-$transaction
  # By ctr's own label this holds the layers until the copy is made: the kubelet may remove the image meanwhile.
  mount=$(snapshots_of overlayfs prepare --target / "$key" "${chains##* }") || return 0
  sources=$(say "$mount" | mount_folders lowerdir) # separated by colons, the lowest last
  # An image can name a snapshot of several layers as its only one; the names of others' layers are no secret.
  if [ "$(say "$sources" | tr : '\n' | grep -c .)" = "$(say "$chains" | wc -w)" ]; then
    is_copied=1
    for chain in $chains; do
      copy_layer "${sources##*:}" "$ROOT$data/$COPIES/$chain" || { is_copied=0 && break; }
      sources=${sources%:*}
    done
    [ "$is_copied" = 0 ] || say "$config $chains" >>"$1/carried"
  else
    say "${chains##* } has other layers than its image says; the image is pulled again" >&2
  fi
  snapshots_of overlayfs rm "$key" || :
}

# copy_layer SOURCE TARGET: by hard links, which need no space and no time, but work below one mount point only. Lower
# layers never change. Without room and time for it nothing is copied. Fails where the layer itself has more links to
# one file than the file system allows twice.
copy_layer() {
  [ ! -d "$2" ] || return 0
  mkdir "$2" || die "$2 cannot be made"
  problem=$(LC_ALL=C cp -al "$1/." "$2" 2>&1) && return
  if [ "$copy_seconds" = 0 ]; then
    case $problem in
      *'Too many links'*) say "the layer $1 cannot be linked; its image is pulled again" >&2 && rm -rf "$2" && return 1 ;;
      *) die "the layer $1 cannot be linked to $2, and its copy was not planned: ${problem##*: }" ;;
    esac
  fi
  problem=$(cp -a --preserve=xattr --remove-destination "$1/." "$2" 2>&1) ||
    die "the layer $1 was not copied to $2: ${problem##*: }"
}

# carry_over DIR: the copies become snapshots of soci.
# Until an image refers to them, ctr's own label keeps the new snapshots from containerd's garbage collection.
carry_over() {
  [ -s "$1/carried" ] || return 0
  clear_carry_keys "$snapshotter"
  while read -r config chains; do carry_image; done <"$1/carried"
  sync -f "$ROOT$data"
  while read -r config chains; do
    for chain in $chains; do
      snapshots_of "$snapshotter" label "$chain" containerd.io/gc.root= >/dev/null
    done
  done <"$1/carried"
}

carry_image() {
  key=soci-cluster-carry-$transaction
  parent=''
  for chain in $chains; do
    is_there "$chain" || carry_layer
    parent=$chain
  done
  # Without its configuration the image was removed meanwhile, and nothing needs its layers.
  ctr --namespace k8s.io content label "$config" "containerd.io/gc.ref.snapshot.$snapshotter=$parent" >/dev/null ||
    ! ctr --namespace k8s.io content get "$config" >/dev/null 2>&1 ||
    die "containerd does not take the layers of $config"
}

carry_layer() {
  mount=$(snapshots_of "$snapshotter" prepare --target / "$key" ${parent:+"$parent"}) || die "soci takes no layer on ${parent:-nothing}"
  target=$(say "$mount" | mount_folders upperdir)
  problem=$(mv -T "$ROOT$data/$COPIES/$chain" "$target" 2>&1) ||
    die "the layer $chain was not moved to $target: ${problem##*: }"
  sync "${target%/*}"
  snapshots_of "$snapshotter" commit "$chain" "$key" && return
  is_there "$chain" || die "soci does not take the layer $chain"
  snapshots_of "$snapshotter" rm "$key" # somebody pulled it meanwhile
}

is_there() { snapshots_of "$snapshotter" ls | awk -v chain="$1" '$1 == chain { found = 1 } END { exit !found }'; }

# clear_carry_keys SNAPSHOTTER: what a copy or a move that was cut short left.
clear_carry_keys() {
  for key in $(snapshots_of "$1" ls | awk '$1 ~ /^soci-cluster-carry-/ { print $1 }'); do snapshots_of "$1" rm "$key"; done
}

# What cannot be deleted now must not keep the way back from its end; the next install tries again.
clear_copies() {
  [ -d "$ROOT${data:?}/$COPIES" ] || return 0
  clear_carry_keys overlayfs || :
  rm -rf "$ROOT${data:?}/$COPIES" || :
}

clear_all_copies() {
  for name in $SLOTS; do slot "$name" && clear_copies; done
}

# clear-copies: of an install that was cut short. At a boot they stay: containerd's start does not wait for that.
clear_copies_left() {
  exec 9>"$STATE/lock"
  flock -w 60 9 || die "an install is at work"
  read_journal
  case $state in armed | restarting) return 0 ;; esac
  clear_all_copies
}

# mount_folders OPTION: the directories of a snapshot, from ctr's mount command; one without parent is a bind mount.
mount_folders() { sed -n -e 's/^mount -t bind \([^ ]*\) .*/\1/p' -e "s/.*[ ,]$1=\([^, ]*\).*/\1/p"; }

# Images whose content is not on the node, neither in containerd's store nor, therefore, to be unpacked by another
# snapshotter: their layers were loaded lazily, or discarded once they were unpacked.
incomplete_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '$4 == "incomplete" { print $1 }'
}

# The kubelet takes such an image for present, but no container of it can be made any more: it has to be pulled anew.
# Those are meant that were incomplete before the change already; later ones were pulled by the new daemon. At a switch
# what was carried over is unpacked for the new snapshotter and stays. So does the sandbox image: no kubelet pulls it.
forget_images() {
  images=$(ctr --namespace k8s.io images check --snapshotter "$snapshotter" 2>/dev/null |
    awk -v is_switch="$is_switch" -v pause="$pause_image" '
      $4 == "incomplete" && $1 != pause && !(is_switch && $NF == "true") { print $1 }' |
    grep -xF -f "$directory/images-to-pull-again") || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $images >/dev/null || :
}
