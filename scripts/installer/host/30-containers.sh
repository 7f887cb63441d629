# --- containers and snapshots, by slot --------------------------------------------------------------------------------

# The mounts of containers that have a layer served by the slot's daemon; a restart of it breaks them for good.
lazy_mounts() {
  awk -v data="$DATA" '
    $0 ~ " - fuse.rawBridge " { lazy[$5] = 1 }
    $0 ~ " - overlay " && index($0, "upperdir=" data "/") { target[++n] = $5; options[n] = $NF }
    END {
      for (i = 1; i <= n; i++) {
        is_lazy = 0
        count = split(options[i], option, ",")
        for (j = 1; j <= count; j++) {
          # lowerdir=A:B, or in newer kernels lowerdir+=A,lowerdir+=B
          if (!sub(/^lowerdir\+?=/, "", option[j])) continue
          layers = split(option[j], layer, ":")
          for (k = 1; k <= layers; k++) {
            path = layer[k]
            if (path !~ /^\//) path = data "/snapshotter/snapshots/" path
            if (path in lazy) is_lazy = 1
          }
        }
        if (is_lazy && !told[target[i]]++) print target[i]
      }
    }' "${MOUNTINFO:-/proc/self/mountinfo}"
}

# The mounts of all containers whose files are in the slot's directory, lazily served or not.
all_mounts() {
  awk -v data="$DATA" '$0 ~ " - overlay " && index($0, "upperdir=" data "/") && !told[$5]++ { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}"
}

# mounts [SLOT [all]]
mounts() {
  local name
  for name in ${1:-$SLOTS}; do
    if [ "${2:-}" = all ]; then in_slot "$name" all_mounts; else in_slot "$name" lazy_mounts; fi
  done
}

# The layers that the slot's daemon serves.
lazy_layers() {
  awk -v data="$DATA" '$0 ~ " - fuse.rawBridge " && index($5, data "/") == 1 { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}"
}

# The containers that were created under the slot's snapshotter; fails when containerd does not answer.
list_containers() {
  local all container
  all=$(ctr --namespace k8s.io containers ls -q) || return
  for container in $all; do
    if ctr --namespace k8s.io containers info "$container" 2>/dev/null | grep -q "^    \"Snapshotter\": \"$SNAPSHOTTER\""; then
      say "$container"
    fi
  done
}

# containerd cannot delete the slot's containers once the snapshotter is gone; the kubelet makes them anew.
remove_containers() {
  local container
  for container in $(list_containers); do
    ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :
    ctr --namespace k8s.io containers rm "$container" >/dev/null 2>&1 || :
  done
  unmount_image_volumes
}

# Image volumes belong to a pod, not to a container: containerd unmounts them with the pod only.
unmount_image_volumes() {
  local mount
  for mount in $(all_mounts); do
    case $mount in */image-volumes/*) timeout 20 umount "$mount" || : ;; esac
  done
}

# The keys of the slot's snapshots, children first: a snapshot with a child cannot be removed.
list_snapshots() {
  local listed
  listed=$(snapshots_of "$SNAPSHOTTER" ls) || return
  say "$listed" | awk '
    NR == 1 { next }
    # The key of a pull has two words (containerd: UnpackKeyFormat).
    $1 ~ /^extract-/ { $1 = $1 "%" $2; $2 = ""; $0 = $0 }
    { print $1, (NF > 2 ? $2 : $1) }' | tsort | tr % ' '
}

# What containerd records of a snapshot can outlive it: it refuses to remove a layer whose child its own garbage collection
# took (core/metadata/gc.go leaves the child's name in the parent), and a daemon's store may be wiped. Nobody lists such a record,
# and every pull of that layer fails on it for good: "target snapshot already exists". The garbage collection takes it once
# no image is said to be unpacked to it.
remove_snapshots() {
  local key
  drop_unpacked "$(unpacked_images | awk '{ print $1 }')"
  list_snapshots 2>/dev/null | while read -r key; do
    snapshots_of "$SNAPSHOTTER" rm "$key" >/dev/null 2>&1 </dev/null || :
  done
  collect_garbage
}

# unpacked_images: configuration and topmost chain of each image that is unpacked in the slot, by containerd's own label.
unpacked_images() {
  ctr --namespace k8s.io content ls | labels_of "containerd.io/gc.ref.snapshot.$SNAPSHOTTER="
}

# labels_of BEGINNING: digest and value of each label of the listed content that begins so.
labels_of() {
  awk -v beginning="$1" '
    { count = split($NF, labels, ",")
      for (i = 1; i <= count; i++)
        if (index(labels[i], beginning) == 1) { value = labels[i]; sub(/^[^=]*=/, "", value); print $1, value } }'
}

# drop_unpacked CONFIGURATIONS: these images count as not unpacked in the slot. One may be removed at this moment.
drop_unpacked() {
  local config
  for config in $1; do
    ctr --namespace k8s.io content label "$config" "containerd.io/gc.ref.snapshot.$SNAPSHOTTER=" >/dev/null 2>&1 || :
  done
}

# collect_garbage: containerd does it when a lease is given back, and tells when it is done.
collect_garbage() {
  ctr --namespace k8s.io leases create --id "$COLLECTING" >/dev/null 2>&1 || : # left by one that was cut short
  ctr --namespace k8s.io leases rm --sync "$COLLECTING" >/dev/null 2>&1 || :
}

# unpack_lost_anew: images whose layers containerd has records of and the daemon has not are unpacked anew when they are needed.
unpack_lost_anew() {
  local unpacked listed lost
  unpacked=$(unpacked_images) || die "containerd does not list its content"
  [ -n "$unpacked" ] || return 0
  listed=$(snapshots_of "$SNAPSHOTTER" ls) || die "containerd does not list the snapshots of $SNAPSHOTTER"
  lost=$({
    say "$listed" | awk '{ print "has", $1 }'
    say "$unpacked" | sed 's/^/unpacked /'
  } | awk '$1 == "has" { has[$2] } $1 == "unpacked" && !($3 in has) { print $2 }')
  [ -z "$lost" ] || forget_records "$lost"
}

# forget_records CONFIGURATIONS: of images that are lost, and of the containers that were made on them. An image volume is
# held by the lease of its pod's sandbox (internal/cri/server/container_image_mount.go), which has the sandbox's name.
forget_records() {
  local container listed
  say "$SNAPSHOTTER lost the layers of $(say "$1" | wc -l) images that containerd has records of" >&2
  drop_unpacked "$1"
  listed=$(snapshots_of "$SNAPSHOTTER" ls) || return 0
  for container in $(list_containers || :); do
    is_listed "$container" "$listed" && continue
    snapshots_of "$SNAPSHOTTER" rm "$container" >/dev/null 2>&1 || :
    some_run "$container" || ctr --namespace k8s.io leases rm "$container" >/dev/null 2>&1 || :
  done
  collect_garbage
}

# is_listed KEY SNAPSHOTS: whether ctr's list of snapshots has that key.
is_listed() { say "$2" | awk -v key="$1" '$1 == key { found = 1 } END { exit !found }'; }

# clear_keys SNAPSHOTTER WORK: the snapshots of that work of ours, which was cut short.
clear_keys() {
  local key
  for key in $(snapshots_of "$1" ls | awk -v beginning="soci-cluster-$2-" 'index($1, beginning) == 1 { print $1 }'); do
    snapshots_of "$1" rm "$key"
  done
}

# The directory itself may be a mount point of the node, such as a fast local disk.
remove_data() {
  [ -d "$ROOT$DATA" ] || return 0
  find "$ROOT$DATA" -xdev -mindepth 1 -delete 2>/dev/null || die "$DATA is still in use"
}

# pods_of MOUNTS: namespace/name of the pods whose containers have these root directories.
pods_of() {
  local mount container
  for mount in $1; do
    container=${mount%/*} # .../<container>/rootfs, or .../image-volumes/<sandbox>/<image>
    container=${container##*/}
    ctr --namespace k8s.io containers info "$container" 2>/dev/null | awk -F '"' -v otherwise="$container" '
      $2 == "io.kubernetes.pod.namespace" { namespace = $4 }
      $2 == "io.kubernetes.pod.name" { name = $4 }
      END { print name == "" ? otherwise : namespace "/" name }'
  done | sort -u | tr '\n' ' '
}

# run_canary SNAPSHOTTER: unpack the pause image there, if it is not, and run it: what each new sandbox is going to need.
run_canary() {
  local canary
  canary=soci-cluster-canary-$TRANSACTION
  timeout 60 ctr --namespace k8s.io run --detach --null-io --snapshotter "$1" "$PLAN_pause_image" "$canary" >/dev/null ||
    die "a container of $PLAN_pause_image does not start under $1"
  ctr --namespace k8s.io tasks ls | grep -q "^$canary .*RUNNING" || die "the canary of $PLAN_pause_image ended at once"
}

clear_canary() {
  ctr --namespace k8s.io tasks rm --force "soci-cluster-canary-$TRANSACTION" >/dev/null 2>&1 || :
  ctr --namespace k8s.io containers rm "soci-cluster-canary-$TRANSACTION" >/dev/null 2>&1 || :
}
