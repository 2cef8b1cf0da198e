-- Take the lease of a collection, unless someone holds it.
-- KEYS[1] {etl:last_sync:<collection>}:lease  string, expires: "<token> <holder>"
-- KEYS[2] {etl:last_sync:<collection>}:fence  string: the newest token, "<number>:<nonce>"
-- ARGV[1] holder  ARGV[2] nonce  ARGV[3] milliseconds the lease lasts
-- Returns {1, token} or {0, "<token> <holder>" of the other, milliseconds it has left}.
-- Asked again with the same nonce (the first answer was lost), it gives the same token again.
-- The number tells people which lease came later; the nonce keeps a token from ever being given
-- twice, also when the numbers start again after a flush.
local held = redis.call('GET', KEYS[1])
if held and string.find(held, ':' .. ARGV[2] .. ' ', 1, true) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1, redis.call('GET', KEYS[2])}
end
if held then
  return {0, held, redis.call('PTTL', KEYS[1])}
end
local last = string.match(redis.call('GET', KEYS[2]) or '0', '^%d+') or '0'
local token = string.format('%d:%s', tonumber(last) + 1, ARGV[2])
redis.call('SET', KEYS[2], token)
redis.call('SET', KEYS[1], token .. ' ' .. ARGV[1], 'PX', ARGV[3])
return {1, token}
