#!/bin/sh
# A host to practise on, made of network namespaces: `lab.sh up`, `lab.sh down`. Needs root.
#
#   canary-client           canary-node                    canary-v1a … canary-v2b
#   192.0.2.2, 192.0.2.130  eth0 192.0.2.1, podX 10.244.0.1   10.244.1.11 … 10.244.2.22, port 5000
#
# HELLOWORLD names the server to run in the pods; it is built by `cargo build`.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
server=${HELLOWORLD:-$root/target/debug/helloworld}
pods="v1a:10.244.1.11 v1b:10.244.1.12 v1c:10.244.1.13 v2a:10.244.2.21 v2b:10.244.2.22"

inside() { # NAMESPACE COMMAND…; not `ip netns exec`, which hides the bpffs
    namespace=$1
    shift
    nsenter --net="/run/netns/canary-$namespace" "$@"
}

up() {
    [ -x "$server" ] || { echo "$server is not there: run \`cargo build\`, or set HELLOWORLD" >&2; exit 1; }
    ip netns add canary-client
    ip netns add canary-node
    ip -n canary-node link add eth0 type veth peer name eth0 netns canary-client
    ip -n canary-client addr add 192.0.2.2/24 dev eth0
    ip -n canary-client addr add 192.0.2.130/24 dev eth0
    ip -n canary-client link set eth0 up
    ip -n canary-node addr add 192.0.2.1/24 dev eth0
    ip -n canary-node link set eth0 up
    ip -n canary-client route add default via 192.0.2.1
    ip -n canary-node link set lo up
    inside node sysctl -q -w net.ipv4.ip_forward=1
    for pod in $pods; do
        name=${pod%%:*} address=${pod#*:}
        ip netns add "canary-$name"
        ip -n "canary-$name" link add eth0 type veth peer name "pod-$name" netns canary-node
        ip -n canary-node addr add 10.244.0.1/32 dev "pod-$name"
        ip -n canary-node link set "pod-$name" up
        ip -n canary-node route add "$address" dev "pod-$name"
        ip -n "canary-$name" addr add "$address/32" dev eth0
        ip -n "canary-$name" link set eth0 up
        ip -n "canary-$name" route add 10.244.0.1 dev eth0
        ip -n "canary-$name" route add default via 10.244.0.1
        inside "$name" "$server" --version-name "${name%?}" --instance "$name" --port 5000 >/dev/null 2>&1 </dev/null &
    done
}

down() {
    for name in client node v1a v1b v1c v2a v2b; do
        [ -e "/run/netns/canary-$name" ] || continue
        for pid in $(ip netns pids "canary-$name"); do
            kill "$pid" 2>/dev/null || true
        done
        ip netns del "canary-$name"
    done
}

case ${1:-} in
    up) up ;;
    down) down ;;
    *) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
