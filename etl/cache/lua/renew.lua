-- Make the lease last longer, for the holder of the newest token only.
-- KEYS[1] {etl:last_sync:<collection>}:lease  string, expires: "<token> <holder>"
-- KEYS[2] {etl:last_sync:<collection>}:fence  string: the newest token
-- ARGV[1] token  ARGV[2] holder  ARGV[3] milliseconds the lease lasts
-- Returns 1, or 0 when another has taken over. A lease that ran out while nobody else took it
-- is simply taken again: the fence shows that no one worked in between.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
