#!/usr/bin/env bash
# A whole league on this machine: five members, a coordinator and an auditor as separate processes, over TLS and with node
# keys, from nothing to a published model and audited logs. One command; what it started is stopped when it ends.
#
#   deploy/demo-league.sh [--mechanism local|distributed] [FOLDER]
#
# FOLDER is a new one; by default a temporary one, which is removed at the end.
# HANSA and PYTHON name the programs, where they are not those of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
PYTHON=${PYTHON:-$root/.venv/bin/python}
HANSA=${HANSA:-$root/.venv/bin/hansa}
members=(north south east west harbour)
export FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

mechanism=local
if [ "${1:-}" = --mechanism ]; then
  mechanism=${2:?local or distributed}
  shift 2
fi
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
free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
ledger=$(free_port)
HANSA=$HANSA PYTHON=$PYTHON "$root/deploy/enrol-demo.sh" "$work" 127.0.0.1 "$port" "$ledger" "$mechanism"
frozen=$work/league.frozen.toml

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

follow=("$HANSA" audit follow "127.0.0.1:$ledger" --keys "$work/keys.json" --mirror "$work/mirror" --home "$work/inspector"
  --ca "$work/ca/ca.crt")
say "an auditor, who mirrors the coordinator's log over mutual TLS and checks it as it grows"
"${follow[@]}" >"$work/logs/inspector.log" 2>&1 &
auditor=$!
started+=("$auditor")

say "a run"
"$HANSA" run start "$frozen" --home "$work/coordinator" --wait
"$HANSA" coordinator status --home "$work/coordinator"

say "the auditor looks at its own mirror, and at what everybody's ledgers say"
kill -0 "$auditor" # it has found nothing wrong so far
kill "$auditor"
wait "$auditor" || [ $? -eq 143 ] # it was asked to stop, and found nothing wrong until then
"${follow[@]}" --once --format json >"$work/followed.json"
run=$("$HANSA" run list --home "$work/coordinator" --format json |
  "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["data"]["runs"][0]["run"])')
folder=$work/coordinator/coordinator/runs/$run
copies=()
for name in "${members[@]}"; do
  copies+=("$work/$name/state/ledger.sqlite")
done
"$HANSA" audit verify "$work/mirror" "$folder/rounds.jsonl" "${copies[@]}" --keys "$work/keys.json" \
  --format json >"$work/audit.json"
say "each sum is made again from the masked vectors that the run has kept"
"$HANSA" run recompute --home "$work/coordinator" --format json >"$work/recomputed.json"
say "and the auditor looks at what the league has published"
"$HANSA" model verify "$folder/publication" --keys "$work/keys.json" --format json >"$work/package.json"
"$PYTHON" "$root/deploy/demo_league.py" --verified "$work" "$folder"
