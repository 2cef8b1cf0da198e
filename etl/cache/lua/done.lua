-- Mark documents as done, once every reply to their writes was read, and strike the claims that they gave up.
-- KEYS    etl:record:<document>: see record.lua
-- ARGV    for each document: timestamp, and the keys that it claims, with spaces between them
-- A document that was recorded with another timestamp since is left as it is.
local stored = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local written_at, recorded = (stored[i] or ''):match('^[01](%d+) (%S+) ')
  if recorded == ARGV[2 * i - 1] then
    redis.call('SET', key, '1' .. written_at .. ' ' .. recorded .. ' ' .. ARGV[2 * i], 'KEEPTTL')
  end
end
return #KEYS
