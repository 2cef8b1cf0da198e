-- Mark documents as done, once every reply to their writes was read, and strike the claims that they gave up.
-- KEYS    etl:record:<document>: see record.lua
-- ARGV    for each document in one text: when it was recorded, its timestamp, and the keys that it claims, each followed
--         by a space
-- A document that was recorded again since is left as it is: its claims may be others.
local stored = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local recorded = ARGV[i]:match('^%d+ %S+ ')
  if stored[i] and stored[i]:sub(2, #recorded + 1) == recorded then
    redis.call('SET', key, '1' .. ARGV[i], 'KEEPTTL')
  end
end
return #KEYS
