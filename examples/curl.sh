#!/usr/bin/env bash
# Ask, lose the connection after ten events, and go on behind the last one: with curl alone.
set -euo pipefail

base=${PENSTOCK_URL:-http://localhost:8080}
options=(--silent --show-error --no-buffer)
if [ -n "${PENSTOCK_KEY:-}" ]; then options+=(--header "Authorization: Bearer $PENSTOCK_KEY"); fi

# What has come by the tenth id; then awk leaves, and curl with it.
first=$(
  curl "${options[@]}" --header 'Content-Type: application/json' "$base/v1/streams" \
    --data '{"request": {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}}' \
    2>/dev/null | awk '{ print } /^id: / && ++count == 10 { exit }' || true
)
printf '%s\n\n' "$first"
cursor=$(sed -n 's/^id: //p' <<<"$first" | tail -n 1)
if [ -z "$cursor" ]; then echo "There is no answer from $base." >&2; exit 1; fi

echo ": the connection is lost; going on after $cursor"
curl "${options[@]}" --fail-with-body --header "Last-Event-ID: $cursor" "$base/v1/streams/${cursor%%~*}/events"
