#!/usr/bin/env bash
# A consumer in plain redis-cli: the messages of a campaign for a segment, and what they cost.
#
#   examples/consumer.sh camp_2025_tech 'Costa Rica_28-40_masculino'
#
# REDIS_URL is the address of Redis. Ends with 1 if the cache has no messages: then ask the AI, not the cache.
# The segment must be in Unicode NFC, as keyboards and most programs write it.
set -euo pipefail

[[ $# == 2 ]] || { echo "usage: $0 CAMPANA_ID SEGMENTO" >&2; exit 2; }
campana_id=$1 segmento=$2
redis() { redis-cli -u "${REDIS_URL:-redis://localhost:6379/0}" "$@"; }

# The key: segmento_hash is the first 32 hex digits of SHA-256.
segmento_hash=$(printf %s "$segmento" | sha256sum | cut -c1-32)
messages="ai:campaign_messages:$campana_id:$segmento_hash"
meta="ai:generation:meta:$campana_id:$segmento_hash"

if [[ $(redis EXISTS "$messages") == 0 ]]; then
  echo "no messages for $campana_id, $segmento" >&2
  exit 1
fi

redis LRANGE "$messages" 0 -1  # one JSON object a line, in the order of `numero`
redis HGET "$meta" cost_total_usd
