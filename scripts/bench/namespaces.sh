#!/usr/bin/env bash
# A Ray cluster whose nodes have networks of their own: two nodes and a head in three network namespaces, joined by a
# bridge. Indexes SOURCE there and with the local engine, and compares every dataset. Needs root; removes what it makes.
#
#   scripts/bench/namespaces.sh [SOURCE] [words of patchmine index ...]     (default: shapes:100 --model shapes)
set -euo pipefail
source=${1:-shapes:100}
if (($#)); then shift; else set -- --model shapes; fi
work=$(mktemp -d)
bridge=patchmine0 subnet=10.77.23
started=()

end() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for number in 1 2 3; do ip netns del "patchmine$number" 2>/dev/null || true; done
  ip link del "$bridge" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT

ip link add "$bridge" type bridge
ip link set "$bridge" up
for number in 1 2 3; do
  ip netns add "patchmine$number"
  ip link add "pmside$number" type veth peer name eth0 netns "patchmine$number"
  ip link set "pmside$number" master "$bridge" up
  ip -n "patchmine$number" address add "$subnet.$number/24" dev eth0
  ip -n "patchmine$number" link set eth0 up
  ip -n "patchmine$number" link set lo up
done

export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 RAY_AUTH_MODE=disabled  # nobody else reaches these networks
node() { # NUMBER WORDS: a node in that namespace, until the end
  local number=$1
  shift
  ip netns exec "patchmine$number" ray start --node-ip-address "$subnet.$number" --object-store-memory 100000000 \
    --temp-dir "$work/ray" --block "$@" >"$work/node$number.log" 2>&1 &
  started+=($!)
}
answers() { timeout 1 bash -c "exec 3<>/dev/tcp/$subnet.1/6379" 2>/dev/null; }
ip address add "$subnet.254/24" dev "$bridge"
node 1 --head --port 6379 --num-cpus 0 --include-dashboard false
until answers; do sleep 0.5; done
sleep 5
node 2 --address "$subnet.1:6379" --num-cpus 1
node 3 --address "$subnet.1:6379" --num-cpus 1

index() { python -m patchmine index "$source" --workers 1 --shard-size 6 "$@"; }
index -o "$work/local.patchmine" "$@"
run=(ip netns exec patchmine1 python -m patchmine index "$source" --workers 1 --shard-size 6)
"${run[@]}" -o "$work/ray.patchmine" --engine ray --address "$subnet.1:6379" "$@"
for number in 1 2 3; do printf 'node %s: ' "$number" && tail -n 1 "$work/node$number.log"; done
python - "$work/local.patchmine" "$work/ray.patchmine" <<'PYTHON'
import sys
from pathlib import Path

from tests.support.activations import datasets

one, other = (datasets(Path(name)) for name in sys.argv[1:])
assert one == other, sorted(name for name in one if one[name] != other.get(name))
print(f"{len(one)} datasets are equal in every byte")
PYTHON
