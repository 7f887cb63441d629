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

remove_snapshots() {
  local key
  list_snapshots 2>/dev/null | while read -r key; do
    snapshots_of "$SNAPSHOTTER" rm "$key" >/dev/null 2>&1 </dev/null || :
  done
}

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
