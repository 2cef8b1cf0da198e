-- Move the checkpoint and what belongs to it in one step, for the holder of the newest token only.
-- KEYS[1]  …:fence          string: the newest fencing token
-- KEYS[2]  …:checkpoint     hash: position, clocks, source, the scan under way
-- KEYS[3]  …:deferred       hash: _id -> the lock that it waits for, and since when
-- KEYS[4]  …:dead_letters   hash: _id -> why it was refused
-- KEYS[5]  …:queues         set: keys of the queues this collection feeds
-- KEYS[6]  …:history        list: reports of the last runs, newest first
-- KEYS[7]  etl:last_sync:<collection>  hash, expires: the published watermark
-- KEYS[8]  …:reconciliation_due  string: number of keys that a document whose claim was dropped may claim next
-- ARGV[1] token
-- ARGV[2] number of this step: greater than that of every earlier step with this token
-- ARGV[3] milliseconds of the new position, or '' if it does not move
-- ARGV[4...] commands, each as: number of its key in KEYS, name, count of arguments, arguments
-- Returns 1; the newest token, or '' if there is none, if that is another one; -1 if the position would go backwards.
-- A step that was executed before (its reply was lost, or the network delivers it late) does nothing.
-- A backfill passes its own fence and checkpoint; the other keys it shares with the cycles.
local newest = redis.call('GET', KEYS[1]) or ''
if newest ~= ARGV[1] then
  return newest
end
local done = redis.call('HGET', KEYS[2], 'step') or ''
local holder, number = string.match(done, '^(%S+) (%d+)$')
if holder == ARGV[1] and tonumber(ARGV[2]) <= tonumber(number) then
  return 1
end
local present = redis.call('HGET', KEYS[2], 'position_ms')
if ARGV[3] ~= '' and present and tonumber(ARGV[3]) < tonumber(present) then
  return -1
end
local i = 4
while i <= #ARGV do
  local key, name, count = KEYS[tonumber(ARGV[i])], ARGV[i + 1], tonumber(ARGV[i + 2])
  redis.call(name, key, unpack(ARGV, i + 3, i + 2 + count))
  i = i + 3 + count
end
redis.call('HSET', KEYS[2], 'step', ARGV[1] .. ' ' .. ARGV[2])  -- last: an error above undoes nothing
return 1
