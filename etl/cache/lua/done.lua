-- Mark documents as done, after every reply to their writes was read, and remove the claims that they released.
-- KEYS    etl:record:<document>: see record.lua
-- ARGV    one text for each document: the time at which it was recorded, and its statement (see record.lua)
-- Returns the number of documents.
-- A document that was recorded again in the meantime is left unchanged: it may claim other keys.
local stored = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local recorded = ARGV[i]:match('^%d+ %S+ ')
  if stored[i] and stored[i]:sub(2, #recorded + 1) == recorded then
    redis.call('SET', key, '1' .. ARGV[i], 'KEEPTTL')
  end
end
return #KEYS
