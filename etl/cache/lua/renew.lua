-- Renew a lease, for its holder only.
-- KEYS[1] {etl:last_sync:<collection>}:<lease>  string, expires: the holder
-- KEYS[2] {etl:last_sync:<collection>}:<fence>  string: the newest token; only where there is a fence
-- ARGV[1] holder  ARGV[2] milliseconds the lease lasts  ARGV[3] token
-- Returns 1, or 0 when the lease is lost: another has taken over, or the fence is gone.
-- A lease that has expired is taken again if no other holder has it: the fence shows that none had it in between, and
-- without a fence that does not matter.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
if KEYS[2] and redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
