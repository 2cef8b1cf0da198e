-- Delete the records of queue requests that have not changed since the caller read them.
-- KEYS[1] {queue:ai_generation:<priority>}:requests  hash: see enqueue.lua
-- ARGV    for each request: document, and the value that was read
-- Returns the number of deleted records.
local deleted = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    deleted = deleted + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return deleted
