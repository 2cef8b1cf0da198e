-- Push requests to a queue, each once per version of its document.
-- KEYS[1] queue:ai_generation:<priority>             list
-- KEYS[2] {queue:ai_generation:<priority>}:enqueued  hash: "<collection> <_id>" -> version last pushed
-- ARGV    for each request: document, version, item
-- Returns for each request 1 (pushed), 0 (this version was pushed before) or -1 (the queue's key
-- holds something that is not a list).
local kind = redis.call('TYPE', KEYS[1]).ok
local usable = kind == 'list' or kind == 'none'
local outcome = {}
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    outcome[#outcome + 1] = 0
  elseif not usable then
    outcome[#outcome + 1] = -1
  else
    redis.call('RPUSH', KEYS[1], ARGV[i + 2])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    outcome[#outcome + 1] = 1
  end
end
return outcome
