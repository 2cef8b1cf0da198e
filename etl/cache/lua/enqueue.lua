-- Push requests to a queue, each once per version of its document.
-- KEYS[1] queue:ai_generation:<priority>             list
-- KEYS[2] {queue:ai_generation:<priority>}:requests  hash: document -> "<written_at> <timestamp last pushed, or ->"
-- ARGV[1] read moment: this server's clock in microseconds, from before the documents were read
-- ARGV[2] deadline: microseconds after which a read is too old to be written
-- ARGV    then for each request: document, timestamp, item ("" if the document requests nothing any more)
-- Returns 0 if the read is too old. Else for each request: 1 (pushed), 0 (nothing to do), 2 (read the document again),
-- -1 (the queue is not a list).
-- A document that requests nothing any more is recorded too, so that an older read that arrives later pushes nothing.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local read_at = tonumber(ARGV[1])
if read_at > now or now - read_at > tonumber(ARGV[2]) then
  return 0
end
local kind = redis.call('TYPE', KEYS[1]).ok
local usable = kind == 'list' or kind == 'none'
local stamp, answers = string.format('%.0f ', now), {}
for i = 3, #ARGV, 3 do
  local document, timestamp, item = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local written_at, pushed = (redis.call('HGET', KEYS[2], document) or '0 -'):match('^(%d+) (%S+)$')
  local answer = 0
  if pushed == timestamp and item ~= '' then
    answer = 0
  elseif read_at <= tonumber(written_at) and tonumber(written_at) <= now then
    answer = 2
  elseif item == '' then
    redis.call('HSET', KEYS[2], document, stamp .. pushed)
  elseif not usable then
    answer = -1
  else
    redis.call('RPUSH', KEYS[1], item)
    redis.call('HSET', KEYS[2], document, stamp .. timestamp)
    answer = 1
  end
  answers[#answers + 1] = answer
end
return answers
