#!/usr/bin/env bash
# A whole league on this machine: five members and a coordinator as separate processes, over TLS and with node keys, from
# nothing to a model whose logs were audited. One command; what it started is stopped when it ends.
#
#   deploy/demo-league.sh [FOLDER]       # a new folder; by default a temporary one, which is removed at the end
#
# HANSA and PYTHON name the programs, where they are not those of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
PYTHON=${PYTHON:-$root/.venv/bin/python}
HANSA=${HANSA:-$root/.venv/bin/hansa}
members=(north south east west harbour)
export FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [ $# -gt 0 ]; then
  work=$1 kept=yes
  mkdir "$work"
else
  work=$(mktemp -d) kept=
fi
started=()

stop() {
  status=$?
  trap - EXIT INT TERM
  [ "${#started[@]}" -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
  for process in "${started[@]:-}"; do
    [ -z "$process" ] || wait "$process" 2>/dev/null || true
  done
  if [ "$status" -ne 0 ]; then
    printf '\nThe demo failed with status %s; what everybody wrote is in %s.\n' "$status" "$work" >&2
  elif [ -z "$kept" ]; then
    rm -rf "$work"
  fi
  exit "$status"
}
trap stop EXIT INT TERM

say() { printf '— %s\n' "$*"; }
quietly() { "$HANSA" "$@" >>"$work/commands.log"; }
free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
ledger=$(free_port)
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
enrol coordinator --address 127.0.0.1
for name in "${members[@]}"; do
  quietly node officer "$name" --out "$work/officer-$name"
  quietly node init "$name" --home "$work/$name" --officer "$work/officer-$name/$name.officer.pub" \
    --superlink "127.0.0.1:$port"
  enrol "$name"
  cp "$work/$name/$name.link" "$work/links"
done

say "generated data, an agreement, everybody's signature and a budget behind each"
"$PYTHON" "$root/deploy/demo_league.py" "$work" "${members[@]}"
quietly agreement freeze "$work/league.toml" --keys "$work/keys"
frozen=$work/league.frozen.toml
for name in "${members[@]}"; do
  quietly agreement sign "$frozen" --home "$work/$name" --out "$work/signatures/league.frozen.$name.sig"
  quietly node grant --home "$work/$name" --officer-key "$work/officer-$name/$name.officer.key" \
    --epsilon 8 --delta 1e-3 --unit record --max-records 1
done
key=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["data"]["log_key"])' "$work/coordinator.json")
quietly agreement keys "$frozen" --signatures "$work/signatures" --federation-log "$key" --out "$work/keys.json"
for name in "${members[@]}"; do
  quietly node accept "$frozen" --keys "$work/keys.json" --home "$work/$name"
done
quietly coordinator init "$frozen" --home "$work/coordinator" --keys "$work/keys.json" --links "$work/links" \
  --listen "127.0.0.1:$port" --ledger "127.0.0.1:$ledger"

say "the coordinator at 127.0.0.1:$port, and five nodes that dial it"
"$HANSA" coordinator start --home "$work/coordinator" >"$work/logs/coordinator.log" 2>&1 &
started+=($!)
for name in "${members[@]}"; do
  "$HANSA" node start --home "$work/$name" >"$work/logs/$name.log" 2>&1 &
  started+=($!)
done
until grep -q "The league meets" "$work/logs/coordinator.log"; do
  kill -0 "${started[0]}"
  sleep 0.2
done

say "a run"
"$HANSA" run start "$frozen" --home "$work/coordinator" --wait
"$HANSA" coordinator status --home "$work/coordinator"

say "the auditor looks at what everybody's logs say"
run=$("$HANSA" run list --home "$work/coordinator" --format json |
  "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["data"]["runs"][0]["run"])')
folder=$work/coordinator/coordinator/runs/$run
copies=()
for name in "${members[@]}"; do
  copies+=("$work/$name/state/ledger.sqlite")
done
"$HANSA" audit verify "$folder/federation" "$folder/rounds.jsonl" "${copies[@]}" --keys "$work/keys.json" \
  --format json >"$work/audit.json"
"$PYTHON" "$root/deploy/demo_league.py" --verified "$work" "$folder"
