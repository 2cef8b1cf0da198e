-- Forget which versions of documents were queued, where nothing has changed since that was read.
-- KEYS[1] {queue:ai_generation:<priority>}:requests  hash: see enqueue.lua
-- ARGV    for each request: document, and the value that was read
-- Returns how many were forgotten.
local forgotten = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return forgotten
