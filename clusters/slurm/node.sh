#!/usr/bin/env bash
# One task of study.sbatch: the Ray node of a host. Task 0 is the head; the others join the address it writes.
set -euo pipefail
run="$1"
task="$SLURM_PROCID"
temporary="$(mktemp -d "/tmp/sarx-$SLURM_JOB_ID-$task-XXXX")" # ours alone; what Ray makes in it is open to all
log="$run/node-$task.log"

if [ -n "${INTERFACE:-}" ]; then
    ip="$(ip -4 -o addr show dev "$INTERFACE" | awk '{ split($4, part, "/"); print part[1]; exit }')"
else
    ip="$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ { print $1; exit }')"
    ip="${ip:-$(hostname -I | awk '{ print $1 }')}"
fi

options=(--node-ip-address="$ip" --temp-dir="$temporary/ray" --num-cpus="${SLURM_CPUS_PER_TASK:-1}"
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block --disable-usage-stats)
if [ "$task" = 0 ]; then
    read -r port dashboard client agent \
        < <(python -c 'from sarx.cluster.local import unused_ports; print(*unused_ports(4))')
    options+=(--head --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard"
        --ray-client-server-port="$client" --dashboard-agent-listen-port="$agent")
    echo "$ip:$port" > "$run/head.new"
    mv "$run/head.new" "$run/head"
else
    until [ -e "$run/head" ]; do sleep 0.5; done
    head="$(cat "$run/head")"
    until (exec 3<> "/dev/tcp/${head%:*}/${head##*:}") 2> /dev/null; do sleep 0.5; done
    options+=(--address="$head" --dashboard-agent-listen-port=0)
fi

trap 'kill -TERM "$node" 2> /dev/null || true' TERM INT
trap 'rm -rf "$temporary"' EXIT
for attempt in 1 2 3; do # Ray gives its processes 15 to 30 s to start, which a busy host does not keep
    ray start "${options[@]}" > "$log" 2>&1 &
    node=$!
    until grep -q "Ray runtime started" "$log" || ! kill -0 "$node" 2> /dev/null; do sleep 0.5; done
    if kill -0 "$node" 2> /dev/null; then break; fi
    echo "the Ray node of task $task did not start (attempt $attempt)" >&2
    tail -n 5 "$log" >&2
    if [ "$attempt" = 3 ]; then exit 1; fi
done
: > "$run/up-$task"
until [ -e "$run/over" ] || ! kill -0 "$node" 2> /dev/null; do sleep 1; done
kill -TERM "$node" 2> /dev/null || true
for _ in $(seq 25); do
    kill -0 "$node" 2> /dev/null || exit 0
    sleep 0.2
done
kill -KILL "$node"
