-- Take a lease, unless another holder has it.
-- KEYS[1] {etl:last_sync:<collection>}:<lease>  string, expires: the holder
-- KEYS[2] {etl:last_sync:<collection>}:<fence>  string: the newest token, "<number>:<holder>"; only of a
--         lease that protects a checkpoint
-- ARGV[1] holder, "<host>:<pid>:<nonce>"  ARGV[2] milliseconds the lease lasts
-- Returns {1, token, 0}, without a fence {1, holder, 0}; or {0, the other holder, milliseconds it has left}.
-- If the same holder calls again (the first reply was lost), it gets the same token.
-- The number shows people which lease is later; the nonce makes a token unique, even if the numbers start again after a
-- flush.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return {0, held, redis.call('PTTL', KEYS[1])}
end
local newest = KEYS[2] and redis.call('GET', KEYS[2]) or ''  -- first: an error here must leave no lease
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not KEYS[2] then
  return {1, ARGV[1], 0}
end
if string.sub(newest, -#ARGV[1] - 1) == ':' .. ARGV[1] then
  return {1, newest, 0}
end
local number = tonumber(string.match(newest, '^%d+') or 0)
local token = string.format('%d:%s', number + 1, ARGV[1])
redis.call('SET', KEYS[2], token)
return {1, token, 0}
