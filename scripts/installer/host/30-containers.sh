# --- containers and snapshots, by slot --------------------------------------------------------------------------------

# The mounts of containers that have a layer served by the slot's daemon; a restart of it breaks them for good.
lazy_users() {
  awk -v data="$data" '
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
        if (is_lazy) print target[i]
      }
    }' "${MOUNTINFO:-/proc/self/mountinfo}" | sort -u
}

# The mounts of all containers whose files are in the slot's directory, lazily served or not.
all_users() {
  awk -v data="$data" '$0 ~ " - overlay " && index($0, "upperdir=" data "/") { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}" | sort -u
}

users() {
  for name in ${1:-$SLOTS}; do
    slot "$name"
    if [ "${2:-}" = all ]; then all_users; else lazy_users; fi
  done
}

# The layers that the slot's daemon serves.
lazy_layers() {
  awk -v data="$data" '$0 ~ " - fuse.rawBridge " && index($5, data "/") == 1 { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}"
}

# The containers that were created under the slot's snapshotter; fails when containerd does not answer.
containers() {
  all=$(ctr --namespace k8s.io containers ls -q) || return
  for container in $all; do
    if ctr --namespace k8s.io containers info "$container" 2>/dev/null | grep -q "^    \"Snapshotter\": \"$snapshotter\""; then
      say "$container"
    fi
  done
}

# containerd cannot delete the slot's containers once the snapshotter is gone; the kubelet makes them anew.
remove_containers() {
  for container in $(containers); do
    ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :
    ctr --namespace k8s.io containers rm "$container" >/dev/null 2>&1 || :
  done
  unmount_image_volumes
}

# Image volumes belong to a pod, not to a container: containerd unmounts them with the pod only.
unmount_image_volumes() {
  for mount in $(all_users); do
    case $mount in */image-volumes/*) timeout 20 umount "$mount" || : ;; esac
  done
}

# The keys of the slot's snapshots, children first: a snapshot with a child cannot be removed.
snapshots() {
  listed=$(snapshots_of "$snapshotter" ls) || return
  say "$listed" | awk '
    NR == 1 { next }
    # The key of a pull has two words (containerd: UnpackKeyFormat).
    $1 ~ /^extract-/ { $1 = $1 "%" $2; $2 = ""; $0 = $0 }
    { print $1, (NF > 2 ? $2 : $1) }' | tsort | tr % ' '
}

remove_snapshots() {
  snapshots 2>/dev/null | while read -r key; do
    snapshots_of "$snapshotter" rm "$key" >/dev/null 2>&1 </dev/null || :
  done
}

# The directory itself may be a mount point of the node, such as a fast local disk.
remove_data() {
  [ -d "$ROOT$data" ] || return 0
  find "$ROOT$data" -xdev -mindepth 1 -delete 2>/dev/null || die "$data is still in use"
}

# pods_of MOUNTS: namespace/name of the pods whose containers have these root directories.
pods_of() {
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
  canary=soci-cluster-canary-$transaction
  timeout 60 ctr --namespace k8s.io run --detach --null-io --snapshotter "$1" "$pause_image" "$canary" >/dev/null ||
    die "a container of $pause_image does not start under $1"
  ctr --namespace k8s.io tasks ls | grep -q "^$canary .*RUNNING" || die "the canary of $pause_image ended at once"
}

clear_canary() {
  ctr --namespace k8s.io tasks rm --force "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
  ctr --namespace k8s.io containers rm "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
}
