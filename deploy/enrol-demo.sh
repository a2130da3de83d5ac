#!/usr/bin/env bash
# Everybody's keys, an agreement, signatures, budgets: the demo league up to where its processes may start.
#
#   enrol-demo.sh FOLDER HOST PORT LEDGER_PORT [local|distributed]
#
# HOST is how members call the coordinator's machine. HANSA and PYTHON name the programs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$1 host=$2 port=$3 ledger=$4 mechanism=${5:-local}
members=(north south east west harbour)
listen=0.0.0.0
[ "$host" != 127.0.0.1 ] || listen=$host

case $mechanism in
local) epsilon=8 ;;
# against everyone a member's noise is the share that it adds itself, so that this epsilon is larger, and is granted
distributed) epsilon=60 ;;
*)
  printf 'There is no mechanism %s: local or distributed.\n' "$mechanism" >&2
  exit 2
  ;;
esac

say() { printf '— %s\n' "$*"; }
quietly() { "$HANSA" "$@" >>"$work/commands.log"; }

mkdir "$work/keys" "$work/links" "$work/signatures" "$work/logs"
say "an authority, and a key and a certificate for everybody"
quietly ca init "$work/ca" --name "Demo league"
enrol() { # NAME ADDRESSES…
  local name=$1
  shift
  quietly ca issue "$work/ca" --request "$work/$name/$name.csr" --member "$name" --out "$work/$name.crt" "$@"
  quietly node certificate "$work/$name.crt" --home "$work/$name" --ca "$work/ca/ca.crt" --crl "$work/ca/ca.crl"
  cp "$work/$name/$name.pub" "$work/keys"
}
"$HANSA" node init coordinator --role coordinator --home "$work/coordinator" --format json >"$work/coordinator.json"
enrol coordinator --address "$host"
quietly node init inspector --role auditor --home "$work/inspector"
enrol inspector
mv "$work/keys/inspector.pub" "$work/inspector.pub" # who only reads is no party of the agreement
for name in "${members[@]}"; do
  quietly node officer "$name" --out "$work/officer-$name"
  quietly node init "$name" --home "$work/$name" --officer "$work/officer-$name/$name.officer.pub" \
    --superlink "$host:$port"
  enrol "$name"
  cp "$work/$name/$name.link" "$work/links"
done

say "generated data, an agreement, everybody's signature and a budget behind each"
"$PYTHON" "$root/demo_league.py" "$work" "$mechanism" "${members[@]}"
quietly agreement freeze "$work/league.toml" --keys "$work/keys"
frozen=$work/league.frozen.toml
for name in "${members[@]}"; do
  quietly agreement sign "$frozen" --home "$work/$name" --out "$work/signatures/league.frozen.$name.sig"
  "$HANSA" node grant --home "$work/$name" --officer-key "$work/officer-$name/$name.officer.key" \
    --epsilon "$epsilon" --delta 1e-3 --unit record --max-records 1 --format json >"$work/granted.json"
  # units that judge models train none: a budget of their own
  trains=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["data"]["dataset"])' "$work/granted.json")
  "$HANSA" node grant --home "$work/$name" --officer-key "$work/officer-$name/$name.officer.key" \
    --epsilon 60 --delta 1e-3 --unit record --max-records 1 --disjoint-from "$trains" --format json |
    "$PYTHON" "$root/demo_league.py" --judges "$work/$name"
done
key=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["data"]["log_key"])' "$work/coordinator.json")
quietly agreement keys "$frozen" --signatures "$work/signatures" --federation-log "$key" --out "$work/keys.json"
for name in "${members[@]}"; do
  quietly node accept "$frozen" --keys "$work/keys.json" --home "$work/$name"
done
quietly coordinator init "$frozen" --home "$work/coordinator" --keys "$work/keys.json" --links "$work/links" \
  --listen "$listen:$port" --ledger "$listen:$ledger" --reader "$work/inspector.pub"
